"""Signs requests to Oracle's services with Oracle's own package ``oci``, which is imported when first needed.

A signature holds the time, and is valid for five minutes: each attempt is a request of its own, signed when it is sent,
with an id of its own by which Oracle's support finds it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from requests import PreparedRequest

from mlops_integrations.backends.credentials import NotSignedError, fetch_plugin
from mlops_integrations.config.oracle_uri import DOMAIN, OracleAddress
from mlops_integrations.config.settings import Access
from mlops_integrations.untrusted import one_line

logger: Final = logging.getLogger(__name__)

INSTALL: Final = "Oracle AI Data Platform needs Oracle's package oci to sign requests: pip install oci"
_DEFAULT_PROFILE: Final = "DEFAULT"

Signer: TypeAlias = Callable[[PreparedRequest], Any]
"""A callable as ``requests`` expects it, but not of its classes: ``oci`` brings its own copy of ``requests``."""


class MissingPackageError(NotSignedError):
    """The package that signs is not installed; the message says how to install it."""


class OracleCredentials:
    """Signs requests with the kind of credentials that the URI, the environment or the profile names.

    Args:
        address: the platform's address; its credential settings win.
        access: the environment's settings.
    """

    def __init__(self, address: OracleAddress, access: Access) -> None:
        self._access = access
        self._profile = address.profile or access.oracle_profile or _DEFAULT_PROFILE
        self._kind = address.auth
        if self._kind is None:
            self._kind = "ambient" if access.request_auth is not None else access.oracle_auth
        self._token: str | None = None
        self._signer: Signer | None = None

    def open(self) -> None:
        """Make the signer, unless there is one.

        Raises:
            MissingPackageError: a package is missing.
            NotSignedError: there are no credentials of this kind, or they can't be read.
        """
        if self._signer is None:
            self._signer = self._made()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Give one attempt its request id, and sign it."""
        self.open()
        assert self._signer is not None
        request.headers["opc-request-id"] = uuid.uuid4().hex
        try:
            self._signer(request)
        except Exception as error:  # these signers get tokens from other services, with an HTTP client of their own
            raise NotSignedError(_text("a request could not be signed", error)) from error
        return request

    def refresh(self) -> bool:
        """Read token and keys again; True if the credentials have changed, or may have."""
        before = self._token
        try:
            fresh = self._made()
        except NotSignedError as error:
            logger.warning("mlops: %s", error)
            return False
        self._signer = fresh
        return self._token != before or self._kind in {"instance_principal", "resource_principal", "ambient"}

    def _made(self) -> Signer:
        if self._access.withheld is not None:  # even if the address names credentials: a stranger may have written it
            raise NotSignedError("nothing is signed for a server that only a run directory names")
        if self._kind == "ambient":
            return self._ambient()
        try:
            import oci
        except ImportError:
            raise MissingPackageError(INSTALL) from None
        try:
            if self._kind == "instance_principal":
                return oci.auth.signers.InstancePrincipalsSecurityTokenSigner()  # type: ignore[no-any-return]
            if self._kind == "resource_principal":
                return oci.auth.signers.get_resource_principals_signer()  # type: ignore[no-any-return]
            return self._of_profile(oci)
        except NotSignedError:
            raise
        except Exception as error:  # the oci package raises errors of many kinds, all of which mean the same here
            what = f"profile {self._profile}" if self._kind in {None, "api_key", "security_token"} else self._kind
            raise NotSignedError(_text(f"Oracle credentials ({what})", error)) from error

    def _ambient(self) -> Signer:
        if self._access.request_auth is None:
            raise NotSignedError("auth=ambient is for Oracle's notebooks: MLFLOW_TRACKING_AUTH is not set here")
        return fetch_plugin(self._access.request_auth)

    def _of_profile(self, oci: Any) -> Signer:
        file = self._access.oracle_config or oci.config.DEFAULT_LOCATION
        config: Mapping[str, Any] = oci.config.from_file(file, self._profile)
        if self._kind == "security_token" or (self._kind is None and config.get("security_token_file")):
            self._token = Path(_wanted(config, "security_token_file")).expanduser().read_text("utf-8").strip()
            key = oci.signer.load_private_key_from_file(_wanted(config, "key_file"), config.get("pass_phrase"))
            return oci.auth.signers.SecurityTokenSigner(self._token, key)  # type: ignore[no-any-return]
        return oci.signer.Signer(  # type: ignore[no-any-return]
            tenancy=_wanted(config, "tenancy"),
            user=_wanted(config, "user"),
            fingerprint=_wanted(config, "fingerprint"),
            private_key_file_location=_wanted(config, "key_file"),
            pass_phrase=config.get("pass_phrase"),
        )


def domain_of(region: str) -> str:
    """The second-level domain of a region's realm, if ``oci`` knows it, else ``DOMAIN``. Asks no service."""
    try:
        from oci import regions
    except ImportError:
        return DOMAIN
    realm = regions.REGION_REALMS.get(region)
    return str(regions.REALMS.get(realm, DOMAIN))


def _wanted(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    if not value:
        raise NotSignedError(f"Oracle's configuration file has no {name} in this profile")
    return str(value)


def _text(what: str, error: Exception) -> str:
    return f"{what}: {one_line(str(error)) or type(error).__name__}"

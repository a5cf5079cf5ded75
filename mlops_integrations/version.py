"""The version of this package, as its headers and requests tell it."""

VERSION = "0.1.0"

"""A real training, recorded on this machine with no server, then shown.

pip install ".[cli,keras]" jax scikit-learn
python examples/quickstart.py
"""

import shlex
import subprocess
import sys

import digits_keras

from mlops_integrations.keras import MLOpsCallback

COMMAND = [sys.executable, "-m", "mlops_integrations"]

if __name__ == "__main__":
    callback = MLOpsCallback(
        experiment_name="digits",
        run_name="quickstart",
        params={"batch_size": digits_keras.BATCH_SIZE},
        mode="offline",  # record only, even where a server is set up
    )
    accuracy = digits_keras.train(callback)
    directory = str(callback.run.directory)

    print(f"\ntest accuracy: {accuracy:.3f}\n", flush=True)
    subprocess.run([*COMMAND, "show", directory], check=True)
    print(f"\nThe run lies in {directory}")
    print("To send it to a tracking server:")
    print(f"  {shlex.join([*COMMAND, 'sync', directory, '--to'])} http://127.0.0.1:5000")

"""Ten epochs with Keras."""

import failing

if failing.WAY == "autolog":
    import mlops_integrations as mlops

    mlops.autolog(frameworks=["keras"])

import keras
import numpy as np


class Failing(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        failing.fail(epoch)  # the fifth has been logged


callbacks = []
if failing.WAY == "callback":
    from mlops_integrations.keras import MLOpsCallback

    callbacks = [MLOpsCallback()]
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=failing.STEPS, verbose=0, callbacks=[*callbacks, Failing()])
print("trained")

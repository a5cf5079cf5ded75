"""``mlops.autolog()``: integrations that are added to trainings without a change to the script."""

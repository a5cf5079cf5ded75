"""MLflow's 2018 preview API, as servers from 0.2 to 0.9 speak it."""

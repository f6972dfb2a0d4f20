"""Short real trainings of what stock recipes ask of a model by the names of its parts, on the embedded benchmark."""

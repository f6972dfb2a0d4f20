from . import hooks  # noqa: F401  (they register)

"""The names of workers that are given as classes or functions."""


def name_of(worker: object) -> object:
    """The name of a worker class or a job function; anything else as it is."""
    return getattr(getattr(worker, "__oban__", None), "name", worker)


def names_of(worker: object) -> tuple[object, ...]:
    """The same, and the aliases, under which jobs may be stored, too."""
    return (name_of(worker), *getattr(getattr(worker, "__oban__", None), "aliases", ()))

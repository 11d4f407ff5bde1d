"""Find the names of workers that are passed as classes or functions."""


def name_of(worker: object) -> object:
    """The name of a worker class or a job function. Any other value is returned unchanged."""
    return getattr(getattr(worker, "__oban__", None), "name", worker)


def names_of(worker: object) -> tuple[object, ...]:
    """The name and the aliases of a worker class or a job function."""
    return (name_of(worker), *getattr(getattr(worker, "__oban__", None), "aliases", ()))

"""The shop's settings, from the environment: the same for the app, its workers and Alembic."""

from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    database_url: str = "postgresql+psycopg://localhost/shop"
    mail_url: str | None = None
    """Where mails are posted to; without it they are logged."""
    owner: str = "owner@shop.test"
    remind_after: float = 86400.0
    """How many seconds an order may stay unpaid."""
    run_jobs: bool = True
    """Whether the app runs the jobs itself, or `oban-sqla start` does, in a process of its own."""
    operator_password: str | None = None
    """The password of the dashboard; without it, only this machine may use the dashboard."""


settings = Settings()

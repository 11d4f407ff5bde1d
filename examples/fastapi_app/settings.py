"""The settings of the shop, from environment variables."""

from pydantic_settings import BaseSettings


class Settings(BaseSettings):
    database_url: str = "postgresql+psycopg://localhost/shop"
    mail_url: str | None = None
    """The URL of the mail provider. If it is not set, mails are logged."""
    owner: str = "owner@shop.test"
    remind_after: float = 86400.0
    """Seconds after which an unpaid order gets a reminder."""
    run_jobs: bool = True
    """Whether the app runs the jobs. If not, run them with `oban-sqla start`."""
    operator_password: str | None = None
    """The password of the dashboard. If it is not set, only this machine may use it."""


settings = Settings()

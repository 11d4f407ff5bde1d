"""The engine, and the session of the current request."""

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql+psycopg://localhost/bookmarks")

engine = create_engine(DATABASE_URL)
Session = scoped_session(sessionmaker(engine))

"""What the common FastAPI guides, followed with care, make of a users service: a table that requests change in place.

`def` endpoints in the thread pool, SQLAlchemy's ORM over psycopg2 with its default pool, a session a request, one
commit a write, PyJWT in a dependency, one uvicorn process. What is filtered or sorted by has an index. Two things that
guides do are left out because they only cost: the caller's own row is not loaded, and a page is not counted.

At 256 connections it stands still: answers that hold a connection wait for a thread to be made into JSON, and all
threads wait for a connection. So it is measured at 32, which leaves it threads.
"""

import sys
import uuid
from collections.abc import Generator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import jwt
import uvicorn
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr
from pydantic_settings import BaseSettings
from sqlalchemy import DateTime, Index, String, create_engine, func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker


class Settings(BaseSettings):
    database_url: str = ""
    secret_key: str = ""


settings = Settings()
engine = create_engine(settings.database_url)
SessionLocal = sessionmaker(engine)
hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
bearer = HTTPBearer()
app = FastAPI()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "guide_users"
    __table_args__ = (Index("ix_guide_users_roles", "roles", postgresql_using="gin"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    display_name: Mapped[str | None]
    status: Mapped[str] = mapped_column(index=True)
    roles: Mapped[list[str]] = mapped_column(ARRAY(String))
    attributes: Mapped[dict[str, Any]] = mapped_column(JSONB)
    hashed_password: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), index=True)
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now(), index=True
    )


class Status(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class UserCreate(BaseModel):
    email: EmailStr
    display_name: str | None = Field(None, max_length=200)
    status: Status = Status.ACTIVE
    roles: list[str] = []
    attributes: dict[str, Any] = {}
    password: SecretStr | None = None


class UserUpdate(BaseModel):
    email: EmailStr | None = None
    display_name: str | None = Field(None, max_length=200)
    status: Status | None = None
    roles: list[str] | None = None
    attributes: dict[str, Any] | None = None
    password: SecretStr | None = None


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    email: EmailStr
    display_name: str | None
    status: Status
    roles: list[str]
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


def get_session() -> Generator[Session]:
    with SessionLocal() as session:
        yield session


def get_caller(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> str:
    try:
        claims = jwt.decode(credentials.credentials, settings.secret_key, algorithms=["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"}) from None
    return claims["sub"]


SessionDep = Annotated[Session, Depends(get_session)]
CallerDep = Annotated[str, Depends(get_caller)]


def save(session: Session, user: User) -> User:
    session.add(user)
    try:
        session.commit()
    except IntegrityError:
        session.rollback()
        raise HTTPException(409, "Email already registered") from None
    session.refresh(user)
    return user


def found(session: Session, user_id: uuid.UUID) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise HTTPException(404, "User not found")
    return user


def columns_of(body: UserCreate | UserUpdate) -> dict[str, Any]:
    columns = body.model_dump(exclude_unset=isinstance(body, UserUpdate), exclude={"password"})
    if body.password is not None:
        columns["hashed_password"] = hasher.hash(body.password.get_secret_value())
    return columns


@app.get("/readyz")
def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/users", response_model=UserOut, status_code=201)
def create_user(body: UserCreate, session: SessionDep, _: CallerDep) -> User:
    return save(session, User(**columns_of(body)))


@app.get("/users/{user_id}", response_model=UserOut)
def read_user(user_id: uuid.UUID, session: SessionDep, _: CallerDep) -> User:
    return found(session, user_id)


@app.get("/users", response_model=list[UserOut])
def list_users(
    session: SessionDep,
    _: CallerDep,
    *,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
    status: Status | None = None,
    role: str | None = None,
    newest: bool = False,
) -> list[User]:
    query = select(User).order_by(User.updated_at.desc() if newest else User.created_at).offset(offset).limit(limit)
    if status is not None:
        query = query.where(User.status == status)
    if role is not None:
        query = query.where(User.roles.contains([role]))
    return list(session.scalars(query))


@app.put("/users/{user_id}", response_model=UserOut)
def update_user(user_id: uuid.UUID, body: UserUpdate, session: SessionDep, _: CallerDep) -> User:
    user = found(session, user_id)
    for name, value in columns_of(body).items():
        setattr(user, name, value)
    return save(session, user)


@app.delete("/users/{user_id}", status_code=204)
def delete_user(user_id: uuid.UUID, session: SessionDep, _: CallerDep) -> None:
    session.delete(found(session, user_id))
    session.commit()


if __name__ == "__main__":
    Base.metadata.create_all(engine)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)

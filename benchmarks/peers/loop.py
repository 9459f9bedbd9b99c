"""What most solutions of the task do: a request, then an ORM object saved, one message after the other."""

import os
import time
from pathlib import Path

import httpx
from sqlmodel import Field, Session, SQLModel, create_engine, select

from benchmarks.peers import records


class Message(SQLModel, table=True):
    """The peers' table as an ORM sees it."""

    id: int | None = Field(default=None, primary_key=True)
    phone: int
    text: str
    status: str
    sent_at: float | None


def work() -> None:
    engine = create_engine(f"sqlite:///{Path.cwd() / records.FILE}")
    with Session(engine) as session, httpx.Client(headers=records.HEADERS, trust_env=False) as http:
        for message in session.exec(select(Message).where(Message.status == "pending")).all():
            body = {"id": message.id, "phone": message.phone, "text": message.text}
            answer = http.post(f"{os.environ['SINK']}{message.id}", json=body)
            message.status = "sent" if answer.json()["code"] == 0 else "failed"
            message.sent_at = time.time()
            session.add(message)
            session.commit()


if __name__ == "__main__":
    records.main(records.create, work)

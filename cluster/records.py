"""What can be read in the results store: runs, what they left behind, and the API's keys (which are written here too).

Every method is one transaction that sees one state of the store. Changes of runs are in ``cluster.store``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import Connection, or_, select

from cluster import keys as key_records
from cluster import results
from cluster.database import Database
from cluster.keys import ApiKey
from cluster.results import Artifact, Event, Point
from cluster.rows import fold, read_run
from cluster.runs import Run, State
from cluster.tables import runs
from jobs.context import Summary

ACTIVE = [str(state) for state in State if not state.is_terminal]


Runs = list[Run]
"""Inside ``Records`` the word ``list`` means the method."""


class RunNotFound(KeyError):  # noqa: N818 (an answer, not a failure of ours)
    """No run has this id."""

    def __str__(self) -> str:
        """Without the quotes that KeyError adds."""
        return f"no run {self.args[0]}"


class Records:
    """An opened results store, to be read. Safe for threads; each process opens its own."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open(cls, url: str, *, migrate: bool = False) -> Self:
        """Open the store at an SQLAlchemy URL; ``migrate`` makes or updates it first.

        Raises:
            StoreError: it is unreachable, read-only, not migrated, or of a newer distox; the message has the remedy.
        """
        return cls(Database.open(url, migrate=migrate))

    @property
    def store_id(self) -> str:
        """The identity of the store, made with it."""
        return self._database.store_id

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def get(self, run_id: str) -> Run:
        """One run.

        Raises:
            RunNotFound: no such run.
        """
        with self._database.read() as connection:
            return self._read(connection, run_id)

    def find_submission(self, owner: str, submission_id: str) -> Run | None:
        """The run that an owner submitted under an id; None when there is none."""
        query = select(runs).where(runs.c.owner == owner, runs.c.submission_id == submission_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else read_run(row)

    def list(
        self,
        *,
        owner: str | None = None,
        state: State | None = None,
        kind: str | None = None,
        parent: str | None = None,
        name: str | None = None,
        name_contains: str | None = None,
        top_level: bool = False,
        limit: int = 50,
        before: str | None = None,
    ) -> Runs:
        """Runs, newest first.

        Only those of the ``owner``, ``state``, ``kind``, ``parent`` and ``name`` that are given; ``name_contains`` is a
        part of the name, or of the step's name in its pipeline, in any case and without wildcards; ``top_level`` leaves
        out the steps of pipelines. At most ``limit``; ``before`` is the last id of the page before this one.
        """
        query = select(runs).order_by(runs.c.id.desc()).limit(limit)
        given = {"owner": owner, "state": state, "kind": kind, "parent": parent, "name": name}
        for column, value in given.items():
            if value is not None:
                query = query.where(runs.c[column] == str(value))
        if (part := fold(name_contains)) is not None:
            # The schema allows no capital in a step's name.
            columns = (runs.c.folded_name, runs.c.step)
            query = query.where(or_(*(column.contains(part, autoescape=True) for column in columns)))
        if top_level:
            query = query.where(runs.c.parent.is_(None))
        if before is not None:
            query = query.where(runs.c.id < before)
        with self._database.read() as connection:
            return [read_run(row) for row in connection.execute(query)]

    def unfinished(self) -> Runs:
        """Every run that has not ended, oldest first."""
        query = select(runs).where(runs.c.state.in_(ACTIVE)).order_by(runs.c.id)
        with self._database.read() as connection:
            return [read_run(row) for row in connection.execute(query)]

    # What a reader asks.

    def points(self, run_id: str, name: str | None = None) -> Sequence[Point]:
        """Live metrics by name and step; an attempt that was taken up from a checkpoint continues those before it."""
        with self._database.read() as connection:
            return results.read_points(connection, run_id, name)

    def summaries(self, run_id: str) -> Sequence[Summary]:
        """The final figures in the job's order; empty before the run SUCCEEDED."""
        with self._database.read() as connection:
            return results.read_summaries(connection, run_id)

    def artifacts(self, run_id: str) -> Sequence[Artifact]:
        """The artifacts with absolute paths, by name; empty before the run SUCCEEDED."""
        with self._database.read() as connection:
            return results.read_artifacts(connection, run_id)

    def events(self, run_id: str, after: int = 0) -> Sequence[Event]:
        """Changes of state with an event id above ``after``, oldest first."""
        with self._database.read() as connection:
            return results.read_events(connection, run_id, after)

    # Keys.

    def create_key(self, owner: str, role: str, name: str) -> str:
        """A new API key in plain, which can't be had again."""
        with self._database.write() as connection:
            return key_records.create(connection, owner=owner, role=role, name=name, now=self._clock())

    def find_key(self, plain: str) -> ApiKey | None:
        """The key that ``plain`` is; None for an unknown, malformed or revoked one."""
        with self._database.read() as connection:
            return key_records.find(connection, plain)

    def keys(self) -> Sequence[ApiKey]:
        """All keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            return key_records.listed(connection)

    def revoke_key(self, prefix: str) -> bool:
        """Make a key useless; whether it was known."""
        with self._database.write() as connection:
            return key_records.revoke(connection, prefix, now=self._clock())

    def _read(self, connection: Connection, run_id: str) -> Run:
        row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        if row is None:
            raise RunNotFound(run_id)
        return read_run(row)

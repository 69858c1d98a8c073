"""Whatever happens to a session and its fleet, its client gets the events that a Generate stream gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.transport.client_sessions.limits import WINDOW_FRAMES
from tests.support.frame_reader import HandleEvents
from tests.unit.control.world import Reader, World, expected
from tests.unit.transport.client_sessions.memory_session import MemorySession, generate_reader

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 60)),
        st.tuples(st.just("advance"), st.sampled_from([0.001, 0.013, 0.05, 0.3])),
        st.tuples(st.just("crash"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("acknowledge"), st.integers(1, WINDOW_FRAMES)),
        st.tuples(st.just("pause"), st.integers(0, 7)),
        st.tuples(st.just("resume"), st.integers(0, 7)),
        st.tuples(st.just("block"), st.booleans()),
        st.tuples(st.just("break"), st.just(0)),
    ),
    max_size=30,
)


@dataclass
class Followed:
    """One request, over however many sessions, beside a Generate stream of it."""

    max_tokens: int
    reader: Reader
    parts: list[HandleEvents] = field(default_factory=list)

    @property
    def token_ids(self) -> list[int]:
        return [token for part in self.parts for token in part.token_ids]

    def check(self) -> None:
        """Compare the session's events with the stream's."""
        last = self.parts[-1]
        assert last.finished is not None, last
        assert self.token_ids == self.reader.token_ids == expected(self.max_tokens)
        assert "".join(part.text for part in self.parts) == "x" * self.max_tokens
        told = [event for event in self.reader.events if isinstance(event, TokenSlice)]
        attempts = [piece.attempt_number for piece in told for _ in piece.token_ids]
        assert [attempt for part in self.parts for attempt in part.attempts] == attempts
        if len(self.parts) == 1:
            placements = [event.decision.attempt_number for event in self.reader.events if isinstance(event, Placement)]
            assert [placed.decision.attempt.number for placed in last.placements] == placements
        assert last.finished.attempts == self.reader.finished.attempts


class Story:
    def __init__(self, world: World) -> None:
        self.world = world
        self.requests: dict[str, Followed] = {}
        self.handles: dict[int, str] = {}
        self.session = MemorySession(world, acknowledges=False)

    async def step(self, kind: str, value: float) -> None:
        session, number = self.session, int(value)
        if kind == "submit":
            await self.submit(number)
        elif kind == "advance":
            await self.world.advance(value)
        elif kind == "acknowledge":
            await session.say(acknowledged=min(number, session.frames.frames))
        elif kind in ("pause", "resume"):
            await session.say(**{kind: [number]})
        elif kind == "break":
            await self.take_up_again()

    async def submit(self, max_tokens: int) -> None:
        name = f"r{len(self.requests)}"
        handle = await self.session.submit(name, max_tokens=max_tokens)
        followed = Followed(max_tokens, generate_reader(self.world, name))
        followed.parts.append(self.session.of(handle))
        self.requests[name] = followed

    async def take_up_again(self) -> None:
        await self.session.break_off()
        self.session = await MemorySession(self.world, acknowledges=False).__aenter__()
        for name, followed in self.requests.items():
            if not followed.parts[-1].over:
                handle = await self.session.attach(name, len(followed.token_ids))
                followed.parts.append(self.session.of(handle))

    async def end(self) -> None:
        """Let everything end: the client reads, resumes all and acknowledges all."""
        session = self.session
        session.taking.set()
        await session.say(resume=list(range(1, 60)))
        for _ in range(200):
            await self.world.advance(0.5)
            await session.say(acknowledged=session.frames.frames, ping=1)
            if all(followed.parts[-1].over for followed in self.requests.values()):
                return


@given(STEPS)
@settings(max_examples=60)
async def test_a_session_tells_what_generate_tells(steps: list[tuple[str, float]]) -> None:
    async with World(queue={"max_attempts": 100}) as world:
        executors = {name: world.add(name, max_running=3) for name in ("a", "b")}
        story = Story(world)
        async with story.session:
            for kind, value in steps:
                if kind == "crash":
                    executors[str(value)].crash()
                    executors[str(value)].restart()
                elif kind == "block":
                    (story.session.taking.clear if value else story.session.taking.set)()
                else:
                    await story.step(kind, value)
            await story.end()
            for followed in story.requests.values():
                followed.check()
            await story.session.__aexit__()
        world.assert_all_room_is_free()

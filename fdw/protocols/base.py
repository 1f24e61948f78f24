"""What the engine asks of a protocol: the interface, and the messages in our own terms.

A protocol knows its wire format and its server's habits; it retries nothing, waits for nothing and raises nothing. Each
request is a Call that ends at some time: in a value, in a Failure, or in an error of ours about an answer that cannot
be read or a request that cannot be written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Generic, Mapping, NoReturn, Protocol, Sequence, TypeVar

from fdw.codec import Buffer, Tensor
from fdw.errors import Failure
from fdw.options import Endpoint, Server
from fdw.signature import TensorSpec

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Call(Protocol[T_co]):
    """One request in flight."""

    def done(self) -> bool:
        """Tell whether the request has ended, without waiting."""

    def failure(self) -> Failure | None:
        """Return how the request failed; None: it did not. Only after done()."""

    def value(self) -> T_co:
        """Return the answer, or raise what is wrong with it. Only after done(), and only without a failure."""

    def cancel(self) -> None:
        """Give the request up; safe at any time."""


@dataclass(frozen=True)
class Finished(Generic[T]):
    """A call that needed no request."""

    answer: T

    def done(self) -> bool:
        """Return True."""
        return True

    def failure(self) -> Failure | None:
        """Return None."""
        return None

    def value(self) -> T:
        """Return the answer."""
        return self.answer

    def cancel(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Failed:
    """A call whose request was not made."""

    how: Failure

    def done(self) -> bool:
        """Return True."""
        return True

    def failure(self) -> Failure:
        """Return how it failed."""
        return self.how

    def value(self) -> NoReturn:
        """Not to be called: there is a failure."""
        raise RequestFailed(self.how)

    def cancel(self) -> None:
        """Do nothing."""


class RequestFailed(Exception):
    """A request that a call consists of did not end well; ``failure`` says how, in our own terms."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


@dataclass(frozen=True)
class Metadata:
    """A model's tensors as the server lists them, without what only the configuration tells.

    ``max_batch_size`` and ``idempotent`` are for protocols that know them without a configuration.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int = 0
    idempotent: bool = True


@dataclass(frozen=True)
class Config:
    """What a model's configuration adds to its metadata.

    ``max_batch_size`` 0: no batch dimension of the server's making. ``optional_inputs`` are tensor names;
    ``parameters`` are pairs of strings.
    """

    max_batch_size: int = 0
    decoupled: bool = False
    sequence: bool = False
    optional_inputs: frozenset[str] = frozenset()
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Statistics:
    """What a server counted of a model since it loaded it, for all clients together; None: it does not count."""

    queue_ns: int | None = None
    compute_ns: int | None = None


@dataclass(frozen=True)
class IndexEntry:
    """A model in the server's repository. ``reason``: why it is not ready, in the server's words, one line."""

    name: str
    version: str
    ready: bool
    reason: str


@dataclass(frozen=True)
class InputData:
    """An input tensor of one request: ``raw`` are little-endian contents."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: Buffer


# What tags, lengths and a dtype's name take at most.
_FRAME_BYTES = 64


@dataclass(frozen=True)
class InferRequest:
    """One inference of so many rows.

    ``version`` '' is the server's choice; ``outputs`` are the names of the wanted tensors; ``parameters`` go beside the
    rows.
    """

    model: str
    version: str
    inputs: Sequence[InputData]
    outputs: Sequence[str]
    rows: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the request on the wire, rather too many than too few; JSON takes more."""
        names = len(self.model) + sum(len(tensor.name) for tensor in self.inputs) + sum(map(len, self.outputs))
        numbers = sum(len(tensor.shape) for tensor in self.inputs)
        frames = _FRAME_BYTES * (1 + len(self.inputs) + len(self.outputs))
        beside = len(str(self.parameters)) * 4 if self.parameters else 0
        return sum(len(tensor.raw) for tensor in self.inputs) + 4 * names + 10 * numbers + frames + beside


class Client(Protocol):
    """A connection to one endpoint of a server. No method waits for the network; ``timeout_ms`` bounds the request."""

    def metadata(self, model: str, version: str, timeout_ms: int) -> Call[Metadata]:
        """Ask for a model's tensors."""

    def config(self, model: str, version: str, timeout_ms: int) -> Call[Config]:
        """Ask for a model's configuration; Config() from a server that has no such call."""

    def index(self, timeout_ms: int) -> Call[tuple[IndexEntry, ...]]:
        """Ask for the models of the server's repository."""

    def statistics(self, model: str, version: str, timeout_ms: int) -> Call[Statistics]:
        """Ask how long a model's requests have waited and been computed; Statistics() where that is not counted."""

    def infer(self, request: InferRequest, timeout_ms: int) -> Call[tuple[Tensor, ...]]:
        """Ask for an inference."""

    def renew(self, failed: Call[object]) -> None:
        """Make later requests use a new connection if they would use the failed call's; others in flight go on."""


# How servers say that a model is known and cannot run now.
_NOT_READY = ("has no available versions", "is not at ready state", "is not ready", "unloading")


def says_not_ready(text: str) -> bool:
    """Tell whether a server's message is about a model that it knows and cannot run now."""
    return any(needle in text for needle in _NOT_READY)


# Makes a client of an endpoint of a server; the function is called, from any thread, whenever a call may have ended.
ClientFactory = Callable[[Server, Endpoint, Callable[[], None]], Client]

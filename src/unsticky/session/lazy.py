"""A dict that loads at first use, and tells its binding of changes. What is special to sessions is in `session.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, Self, TypeVar

from ..errors import SessionHeadersSent, SessionUnavailable
from .binding import Binding
from .codec import SCALARS
from .names import field_name
from .operations import Steps

T = TypeVar("T")


Opener = Callable[[], Binding]


class Driver(Protocol):
    """Does what steps yield: `run` in a thread, `run_async` on an event loop. Both raise SessionUnavailable."""

    def run(self, steps: Steps[T]) -> T: ...

    async def run_async(self, steps: Steps[T], binding: Binding | None = None) -> T:
        """Those of one `binding` one after the other: tasks that write at once would shut each other out."""
        ...


class LazyDict(dict[str, Any]):
    """The values of a session.

    Both frameworks announce the first use (Flask assigns `accessed`, Starlette calls `mark_accessed`): that loads it.
    Without them, as with `scope["session"]`, the first method called does. A session that nobody uses costs nothing.
    """

    __slots__ = ("_binding", "_driver", "_lent", "_modified", "_open", "_pending", "_sealed", "used")

    _binding: Binding | None
    _open: Opener | None
    _driver: Driver | None
    _pending: bool  # bound, and not used yet or not available
    _modified: bool
    _sealed: bool
    _lent: bool  # has the application had its hands on a value that can change inside?
    used: bool  # as `accessed`, which Flask assigns; reading a property would cost each request a call

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As a dict: a session without a request."""
        dict.__init__(self, *args, **kwargs)
        self._binding = self._open = self._driver = None
        self._pending = self._modified = self._sealed = self._lent = self.used = False

    @classmethod
    def bound(cls, open_binding: Opener, driver: Driver) -> Self:
        """The session of a request. `open_binding` is called at its first use."""
        session = cls.__new__(cls)  # an empty dict already
        session._binding, session._open, session._driver = None, open_binding, driver
        session._pending = True
        session._modified = session._sealed = session._lent = session.used = False
        return session

    def opened(self) -> Binding | None:
        """What ties it to its request; None for a session without one."""
        if self._binding is None and self._open is not None:
            self._binding = self._open()
            self._binding.closed = self._sealed
        return self._binding

    # What both frameworks know -----------------------------------------------------------------------------------

    @property
    def accessed(self) -> bool:
        """Was it read or written in this request? Setting it to True loads the session."""
        return self.used

    @accessed.setter
    def accessed(self, value: bool) -> None:
        if not value:
            self.used = False
        elif self._pending or not self.used:  # Flask says so at every use
            self.mark_accessed()

    @property
    def modified(self) -> bool:
        """Was a key assigned or removed? Changes inside of values are found when the session is committed."""
        return self._modified

    @modified.setter
    def modified(self, value: bool) -> None:
        self._modified = value

    def mark_accessed(self) -> None:
        """Load the session, if that was not done. Raises SessionUnavailable when its store is away.

        One that has to be awaited is left for `load()`: Starlette comes here for `request.session` alone.
        """
        self.used = True
        if self._pending:
            binding = self._binding or self.opened()
            if binding is not None:
                if binding.loader is None and binding.waits:
                    return
                try:
                    dict.update(self, binding.load())
                except SessionUnavailable as error:
                    self._refuse(error)
            self._pending = False

    def mark_modified(self) -> None:
        binding = self._changing()
        if binding is not None and binding.closed and binding.record is None:
            raise SessionHeadersSent(_TOO_LATE)

    def _changing(self) -> Binding | None:
        """A change begins. Raises SessionUnavailable: what seems to be absent may be there, so nothing may succeed."""
        if self._pending:
            self._use()
        self.used = self._modified = True
        binding = self._binding
        if binding is not None:
            binding.changed = True
            if binding.unavailable is not None:
                self._refuse(binding.unavailable)
        return binding

    def _refuse(self, error: SessionUnavailable) -> NoReturn:
        """The store is away. A host may raise an error of its framework."""
        raise error

    def _use(self) -> None:
        if self._pending:
            self.mark_accessed()
            if self._pending and self._binding is not None:
                self._binding.load()  # says that it has to be awaited

    def show(self, values: Mapping[str, Any]) -> None:
        """Make `values`, which the application has not seen, what the session holds. None of it is a change."""
        dict.clear(self)
        dict.update(self, values)
        self._pending = False

    def seal(self) -> None:
        """The headers are sent: from now on an existing session may change, and no new one may begin."""
        self._sealed = True
        if self._binding is not None:
            self._binding.closed = True

    def let_go(self) -> None:
        """The request is over. Without this the two would keep each other until the garbage collector finds them."""
        self._open = None
        if self._binding is not None:
            self._binding.let_go()

    # dict, with the first use in front ------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        if self._pending:
            self._use()
        value = dict.__getitem__(self, key)
        if type(value) not in SCALARS:
            self._lent = True
        return value

    def get(self, key: str, default: Any = None) -> Any:
        if self._pending:
            self._use()
        value = dict.get(self, key, default)
        if type(value) not in SCALARS:
            self._lent = True
        return value

    def __contains__(self, key: object) -> bool:
        self._use()
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self._use()
        return super().__iter__()

    def __reversed__(self) -> Iterator[str]:
        self._use()
        return super().__reversed__()

    def __len__(self) -> int:
        self._use()
        return super().__len__()

    def __eq__(self, other: object) -> bool:
        self._use()
        if isinstance(other, LazyDict):
            other._use()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __repr__(self) -> str:
        # No load here: a debugger or a log line that shows the request must not use the session.
        return f"<{type(self).__name__}{', not used' if self._pending else ' ' + super().__repr__()}>"

    def __or__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return dict(self) | other  # type: ignore[no-any-return]

    def __ror__(self, other: Any) -> dict[str, Any]:  # type: ignore[override]
        return other | dict(self)  # type: ignore[no-any-return]

    def keys(self) -> Any:
        self._use()
        return super().keys()

    def values(self) -> Any:
        self._use()
        self._lent = True
        return super().values()

    def items(self) -> Any:
        self._use()
        self._lent = True
        return super().items()

    def copy(self) -> dict[str, Any]:
        """A plain dict."""
        return dict(self.items())

    def __copy__(self) -> dict[str, Any]:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # copy.deepcopy gives a plain dict as well: a second session object of one request would write twice.
        return dict, (self.copy(),)

    def __setitem__(self, key: str, value: Any) -> None:
        key = field_name(key)
        self.mark_modified()
        if type(value) not in SCALARS:
            self._lent = True
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.mark_modified()
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        self._use()
        if super().__contains__(key):
            self.mark_modified()
        elif self._binding is not None and self._binding.unavailable is not None:
            self._refuse(self._binding.unavailable)
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._use()
        item = super().popitem()
        self.mark_modified()
        return item

    def setdefault(self, key: str, default: Any = None) -> Any:
        self._use()
        if not super().__contains__(key):
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.mark_modified()
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any, /) -> Self:  # type: ignore[override]
        self.update(other)
        return self


_TOO_LATE = (
    "The response's headers are sent, so no new session can begin: its cookie can't be set any more. "
    "Write to the session before the first byte of the response."
)

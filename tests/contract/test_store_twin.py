"""The twin against Azurite: random sequences of calls have the same results, failures, order and pages."""

from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from crm_core.ports import Operation, Row, RowChanged, RowExists
from crm_core.storage.azure import AzureTable, StorageAccount
from crm_core.storage.memory import MemoryTable

# Few keys, so that they meet; some of each kind that sorts or escapes differently.
KEYS = ("", "a", "a~1", "a~2", "b", "B", "it's", "%41", "50%", "a b", "é", "🦤", "\ue000", "\uffff", "+&=;")
key = st.sampled_from(KEYS)
partition = st.sampled_from(("p", "p~", "🦤", "\ue000", "it's"))
value = st.one_of(st.integers(-5, 5), st.sampled_from(["", "ñ", b"\x00", True, 2.0, float("inf")]))
values = st.dictionaries(st.sampled_from(["x", "y", "ñ"]), value, max_size=3)
guard = st.sampled_from(["any", "current", "stale"])
kind = st.sampled_from(["insert", "replace", "upsert", "delete"])
bound = st.one_of(st.none(), key, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3))


class TwinMachine(RuleBasedStateMachine):
    """Does the same to both stores; ETags are compared through the pairs that the stores gave."""

    def __init__(self, azure: AzureTable) -> None:
        super().__init__()
        self.azure, self.memory = azure, MemoryTable()
        self.table = f"T{uuid4().hex}"
        self.given: dict[tuple[str, str], list[tuple[str, str]]] = {}

    @initialize()
    def make_table(self):
        row = Row("made", "first")
        self.learn([row], self.both(lambda store, _: [store.upsert(self.table, row)]))

    def both(self, call):
        """Calls on Azure and in memory (`side` 0 and 1); gives both results, once they are alike in kind."""
        results = [self.outcome(call, store, side) for side, store in enumerate((self.azure, self.memory))]
        assert isinstance(results[0], tuple) == isinstance(results[1], tuple), results
        if isinstance(results[0], tuple):
            assert results[0] == results[1]
        return results

    @staticmethod
    def outcome(call, store, side):
        try:
            return call(store, side)
        except (RowExists, RowChanged) as error:
            return (type(error), error.index)

    def etag(self, pk: str, rk: str, guarding: str) -> tuple[str, str]:
        pairs = self.given.get((pk, rk), [])
        if guarding == "any" or not pairs:
            return ("*", "*")
        return pairs[-1] if guarding == "current" else pairs[0]

    def learn(self, rows: list[Row], results) -> None:
        if isinstance(results[0], list):
            for row, *pair in zip(rows, *results, strict=True):
                assert bool(pair[0]) == bool(pair[1])
                if pair[0]:
                    self.given.setdefault((row.pk, row.rk), []).append(tuple(pair))

    def alike(self, ours: Row | None, twin: Row | None) -> None:
        assert (ours is None) == (twin is None)
        if ours is not None:
            assert (ours.pk, ours.rk, ours.values) == (twin.pk, twin.rk, twin.values)
            assert {n: type(v) for n, v in ours.values.items()} == {
                n: type(v) for n, v in twin.values.items()
            }
            assert (ours.etag, twin.etag) in self.given[ours.pk, ours.rk]

    @rule(pk=partition, steps=st.lists(st.tuples(kind, key, values, guard), min_size=1, max_size=6))
    def transact(self, pk, steps):
        # A transaction names each row once.
        steps = list({rk: (each, rk, changed, guarding) for each, rk, changed, guarding in steps}.values())
        rows = [Row(pk, rk, changed) for _, rk, changed, _ in steps]

        def call(store, side):
            operations = [
                Operation(each, row, self.etag(pk, row.rk, guarding)[side])
                for (each, _, _, guarding), row in zip(steps, rows, strict=True)
            ]
            return store.transact(self.table, operations)

        self.learn(rows, self.both(call))

    @rule(each=kind, pk=partition, rk=key, changed=values, guarding=guard)
    def write(self, each, pk, rk, changed, guarding):
        row, pair = Row(pk, rk, changed), self.etag(pk, rk, guarding)

        def call(store, side):
            if each == "delete":
                store.delete(self.table, pk, rk, pair[side])
                return [""]
            if each == "replace":
                return [store.replace(self.table, row, pair[side])]
            return [getattr(store, each)(self.table, row)]

        self.learn([row], self.both(call))

    @rule(pick=st.integers(0, 99), each=kind, changed=values, guarding=guard)
    def write_again(self, pick, each, changed, guarding):
        """A row that was written before, so that stale ETags and taken keys are common."""
        pk, rk = sorted(self.given)[pick % len(self.given)]
        self.write(each, pk, rk, changed, guarding)

    @rule(pick=st.integers(0, 99), each=kind, changed=values, guarding=guard, more=st.lists(key, max_size=3))
    def transact_again(self, pick, each, changed, guarding, more):
        """Such a row as the last of a transaction, so that an index other than 0 is common."""
        pk, last = sorted(self.given)[pick % len(self.given)]
        steps = [("upsert", rk, {}, "any") for rk in more if rk != last]
        self.transact(pk, [*steps, (each, last, changed, guarding)])

    @rule(pk=partition, rk=key)
    def get(self, pk, rk):
        self.alike(self.azure.get(self.table, pk, rk), self.memory.get(self.table, pk, rk))

    @rule(
        pk=st.one_of(st.none(), partition),
        pk_to=st.one_of(st.none(), partition, bound),
        rk=bound.map(lambda text: text or ""),
        rk_to=bound,
        top=st.sampled_from([1, 2, 5, 1000]),
        select=st.sampled_from([None, None, ["x"], ["y", "ñ"], []]),
    )
    def query(self, pk, pk_to, rk, rk_to, top, select):
        conditions = {"pk": pk, "pk_to": pk_to, "rk": rk, "rk_to": rk_to, "top": top, "select": select}
        tokens = [None, None]
        while True:
            pages = [
                store.query(self.table, token=token, **conditions)
                for store, token in zip((self.azure, self.memory), tokens, strict=True)
            ]
            assert [(row.pk, row.rk) for row in pages[0].rows] == [(row.pk, row.rk) for row in pages[1].rows]
            for ours, twin in zip(pages[0].rows, pages[1].rows, strict=True):
                self.alike(ours, twin)
            tokens = [page.token for page in pages]
            assert (tokens[0] is None) == (tokens[1] is None)
            if tokens[0] is None:
                return


def test_the_twin_is_like_azurite(azurite):
    azure = AzureTable(StorageAccount(azurite))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    try:
        run_state_machine_as_test(
            lambda: TwinMachine(azure),
            settings=settings(
                max_examples=120, stateful_step_count=25, deadline=None, suppress_health_check=checks
            ),
        )
    finally:
        azure.close()

import asyncio
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.batching import MicroBatcher
from serving.catalogue import Catalogue, Entry
from serving.drift import Drift
from serving.errors import ConfigurationError, ModelNotFound, ModelRejected, NotReady
from serving.manifest import FILE_NAME, MODEL_FILE_NAME, read_manifest
from serving.metrics import Metrics
from serving.predictor import Predictor
from serving.repository import Repository, load
from tests.serving.test_trials import end_within_a_trial
from tests.serving.tiny_model import tiny_graph, tiny_manifest, write_tiny_model


class World:
    """A repository on disk and the catalogue of it."""

    def __init__(self, root: Path, default: str = "tiny", shared: Path | None = None) -> None:
        self.root, self.registry, self.made = root, CollectorRegistry(), []
        self.metrics = Metrics(self.registry)
        self.before_make: Callable[[], None] = lambda: None
        self.catalogue = Catalogue(Repository(root), self.make, default, self.metrics, shared)

    def make(self, folder: Path) -> Predictor:
        self.before_make()
        self.made.append(f"{folder.parent.name}/{folder.name}")
        model = load(folder, "cpu", 1)
        batcher = MicroBatcher(model.runtime.run, max_batch_size=8, queue_size=8)
        drift = Drift(model.manifest.reference, 100)
        return Predictor(model, batcher, self.metrics.of_model(model.name, model.version), drift)

    def served(self) -> list[str]:
        return [f"{entry.name}/{entry.version}" for entry in self.catalogue.entries() if entry.state == "READY"]

    def agreed(self) -> list[str]:
        """Return what is served, which every question is answered alike."""
        catalogue, served = self.catalogue, self.served()
        listed = [f"{name}/{version}" for name in catalogue.names() for version in catalogue.versions(name)]
        found = [catalogue.get(*each.split("/")) for each in served]
        assert listed == [f"{each.name}/{each.version}" for each in found] == served
        assert set(catalogue.predictors()) == set(found)
        assert [catalogue.get(name).version for name in catalogue.names()] == [
            catalogue.versions(name)[-1] for name in catalogue.names()
        ]
        return served

    def info(self, name: str, version: str, sha256: str = "") -> float | None:
        sha256 = sha256 or read_manifest(self.root / name / version).file.sha256
        labels = {"model": name, "version": version, "sha256": sha256}
        return self.registry.get_sample_value("mnist_model_info", labels)

    def loads(self, name: str, result: str) -> float | None:
        labels = {"model": name, "result": result}
        return self.registry.get_sample_value("mnist_model_loads_total", labels)


def spoil(folder: Path) -> None:
    (folder / MODEL_FILE_NAME).write_bytes(b"no model")


def no_device() -> None:
    raise ConfigurationError("device cuda: no")


@pytest.fixture
def world(tmp_path: Path) -> World:
    for name, version in (("tiny", 1), ("tiny", 2), ("other", 1)):
        write_tiny_model(tmp_path, name, version)
    return World(tmp_path)


async def test_every_version_is_served_and_the_largest_answers(world: World):
    await world.catalogue.start()
    get = world.catalogue.get
    assert world.catalogue.ready
    assert world.served() == ["other/1", "tiny/1", "tiny/2"]
    assert [get().version, get("tiny").version, get("tiny", "1").version, get(None, "1").version] == [
        "2",
        "2",
        "1",
        "1",
    ]
    assert (get("other").name, get("", "").name) == ("other", "tiny")
    assert (world.catalogue.names(), world.catalogue.versions("tiny")) == (["other", "tiny"], ["1", "2"])


async def test_before_the_models_are_loaded_nothing_is_ready(world: World):
    assert not world.catalogue.ready
    with pytest.raises(NotReady, match="being loaded"):
        world.catalogue.get()


@pytest.mark.parametrize(("name", "version"), [("none", None), ("tiny", "9"), ("tiny", "../1"), ("../tiny", None)])
async def test_what_is_not_there_is_not_found(world: World, name: str, version: str | None):
    await world.catalogue.start()
    with pytest.raises(ModelNotFound, match="there are: "):
        world.catalogue.get(name, version)


async def test_a_version_that_fails_is_not_served_and_the_log_says_why(world: World, caplog: pytest.LogCaptureFixture):
    spoil(world.root / "tiny" / "2")
    await world.catalogue.start()
    assert world.catalogue.ready
    assert world.catalogue.get().version == "1"
    assert "tiny version 2 is not served: size: found 8 bytes" in caplog.text
    assert (world.loads("tiny", "loaded"), world.loads("tiny", "rejected")) == (1, 1)
    (failed,) = [entry for entry in world.catalogue.entries() if entry.state == "UNAVAILABLE"]
    assert (failed.name, failed.version) == ("tiny", "2")
    assert failed.reason.startswith("size: found 8 bytes")
    with pytest.raises(NotReady, match="version 2 is not served"):
        world.catalogue.get("tiny", "2")


@pytest.mark.parametrize("missing", [True, False])
async def test_without_the_default_model_the_process_is_not_ready(
    world: World, missing: bool, caplog: pytest.LogCaptureFixture
):
    catalogue = World(world.root, "absent" if missing else "tiny").catalogue
    if not missing:
        spoil(world.root / "tiny" / "1")
        spoil(world.root / "tiny" / "2")
    await catalogue.start()
    assert not catalogue.ready
    assert f"not ready; models in {world.root}: other, tiny" in caplog.text
    assert catalogue.get("other").version == "1"
    with pytest.raises(ModelNotFound if missing else NotReady):
        catalogue.get()


async def test_where_there_are_no_models_that_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    await World(tmp_path).catalogue.start()
    assert f"models in {tmp_path}: none" in caplog.text


async def test_a_device_that_is_not_there_stops_the_start(world: World):
    world.before_make = no_device
    with pytest.raises(ConfigurationError):
        await world.catalogue.start()


async def test_a_device_that_has_gone_since_the_start_leaves_all_as_it_was(world: World):
    await world.catalogue.start()
    world.before_make = no_device
    write_tiny_model(world.root, "another", 1)
    write_tiny_model(world.root, "tiny", 3)
    await world.catalogue.reload()
    assert world.agreed() == ["other/1", "tiny/1", "tiny/2"]
    assert [entry.reason for entry in world.catalogue.entries() if entry.reason] == 2 * [
        "device: found device cuda: no, expected a session on it"
    ]
    with pytest.raises(ModelRejected, match="device cuda: no"):
        await world.catalogue.load("tiny")


async def test_a_new_version_answers_after_a_reload_and_the_others_are_not_loaded_again(world: World):
    await world.catalogue.start()
    world.made.clear()
    write_tiny_model(world.root, "tiny", 3)
    await world.catalogue.reload()
    assert world.catalogue.get().version == "3"
    assert world.made == ["tiny/3"]


async def test_a_bad_new_version_leaves_the_old_one_in_place(world: World):
    await world.catalogue.start()
    spoil(write_tiny_model(world.root, "tiny", 3))
    with pytest.raises(ModelRejected, match=r"^tiny version 3: size: found 8 bytes, expected \d+ bytes$"):
        await world.catalogue.load("tiny")
    assert world.catalogue.ready
    assert world.catalogue.get().version == "2"


async def test_who_loads_a_good_new_version_hears_nothing_of_a_bad_old_one(world: World):
    spoil(world.root / "tiny" / "1")
    await world.catalogue.start()
    write_tiny_model(world.root, "tiny", 3)
    await world.catalogue.load("tiny")
    assert world.agreed() == ["other/1", "tiny/2", "tiny/3"]


async def test_a_version_that_was_replaced_by_a_bad_one_goes_on(world: World, caplog: pytest.LogCaptureFixture):
    await world.catalogue.start()
    before = world.catalogue.get("tiny", "2")
    folder = world.root / "tiny" / "2"
    model, manifest = (folder / MODEL_FILE_NAME).read_bytes(), read_manifest(folder)
    manifest.model_copy(update={"description": "changed"}).write(folder)
    spoil(folder)
    await world.catalogue.reload()
    assert world.catalogue.get("tiny", "2") is before
    assert "tiny version 2 stays as it was: size: found 8 bytes" in caplog.text
    assert "is not served" not in caplog.text
    with pytest.raises(ModelRejected, match="tiny version 2: size"):
        await world.catalogue.load("tiny")
    manifest.write(folder)
    (folder / MODEL_FILE_NAME).write_bytes(model)
    await world.catalogue.load("tiny")
    assert world.catalogue.get("tiny", "2") is before


async def test_a_version_that_was_replaced_by_a_good_one_is_exchanged(world: World):
    await world.catalogue.start()
    before = world.catalogue.get("tiny", "2")
    folder = world.root / "tiny" / "2"
    read_manifest(folder).model_copy(update={"description": "changed"}).write(folder)
    await world.catalogue.reload()
    assert world.catalogue.get("tiny", "2") is not before
    assert world.catalogue.get("tiny", "2").manifest.description == "changed"
    assert world.info("tiny", "2") == 1


async def test_a_file_that_was_exchanged_for_another_is_shown_no_longer(world: World):
    await world.catalogue.start()
    folder = world.root / "tiny" / "2"
    before = read_manifest(folder).file.sha256
    graph = tiny_graph()
    graph.doc_string = "another"
    (folder / MODEL_FILE_NAME).write_bytes(graph.SerializeToString())
    tiny_manifest(graph.SerializeToString(), "tiny", 2).write(folder)
    await world.catalogue.reload()
    assert (world.info("tiny", "2", before), world.info("tiny", "2")) == (0, 1)


async def test_a_version_that_vanishes_is_served_no_longer(world: World):
    await world.catalogue.start()
    sha256 = read_manifest(world.root / "tiny" / "2").file.sha256
    (world.root / "tiny" / "2").rename(world.root.parent / "gone")
    await world.catalogue.reload()
    assert world.catalogue.get().version == "1"
    labels = {"model": "tiny", "version": "2", "sha256": sha256}
    assert world.registry.get_sample_value("mnist_model_info", labels) == 0


@pytest.mark.parametrize("mounted", [True, False])
async def test_where_all_models_vanish_at_once_those_that_are_loaded_go_on(
    world: World, caplog: pytest.LogCaptureFixture, mounted: bool
):
    await world.catalogue.start()
    away = world.root.rename(world.root.parent / "away")
    if mounted:
        world.root.mkdir()
    await world.catalogue.reload()
    assert world.agreed() == ["other/1", "tiny/1", "tiny/2"]
    assert f"there are no models in {world.root}; what was loaded goes on" in caplog.messages
    if mounted:
        world.root.rmdir()
    away.rename(world.root)
    shutil.rmtree(world.root / "tiny" / "2")
    await world.catalogue.reload()
    assert world.agreed() == ["other/1", "tiny/1"]


async def test_who_loads_a_model_also_finds_that_others_have_vanished(world: World):
    await world.catalogue.start()
    shutil.rmtree(world.root / "other")
    await world.catalogue.load("tiny")
    assert world.agreed() == ["tiny/1", "tiny/2"]


async def test_a_version_that_vanishes_while_others_are_loaded_harms_none_of_them(world: World):
    def remove() -> None:
        shutil.rmtree(world.root / "other", ignore_errors=True)
        shutil.rmtree(world.root / "tiny" / "2", ignore_errors=True)

    await world.catalogue.start()
    for name, version in (("tiny", 3), ("youngest", 1)):
        write_tiny_model(world.root, name, version)
    first = world.root / "tiny" / "1"
    read_manifest(first).model_copy(update={"description": "changed"}).write(first)
    world.before_make = remove
    await world.catalogue.reload()
    assert world.agreed() == ["tiny/1", "tiny/3", "youngest/1"]


async def test_what_is_not_served_has_no_drift_and_each_version_has_its_own(world: World):
    await world.catalogue.start()
    for version in ("1", "2"):
        for _ in range(100):
            await world.catalogue.get("tiny", version).infer(np.zeros((1, 28, 28), np.uint8))
    list(world.registry.collect())  # to collect is to write what was noted
    for predictor in world.catalogue.predictors():
        predictor.update_drift()

    def drift(version: str) -> float | None:
        labels = {"model": "tiny", "version": version, "feature": "digits"}
        return world.registry.get_sample_value("mnist_drift_index", labels)

    assert drift("1") == drift("2") != 0
    shutil.rmtree(world.root / "tiny" / "2")
    await world.catalogue.reload()
    assert (drift("1") != 0, drift("2")) == (True, 0)


async def test_an_unloaded_model_stays_away_until_it_is_loaded(world: World):
    await world.catalogue.start()
    await world.catalogue.unload("tiny")
    assert not world.catalogue.ready
    assert world.info("tiny", "2") == 0
    await world.catalogue.reload()
    with pytest.raises(NotReady, match="unloaded"):
        world.catalogue.get("tiny")
    with pytest.raises(ModelNotFound):
        await world.catalogue.unload("tiny")
    await world.catalogue.load("tiny")
    assert world.catalogue.ready
    assert world.info("tiny", "2") == 1
    write_tiny_model(world.root, "tiny", 3)
    await world.catalogue.reload()
    assert world.agreed() == ["other/1", "tiny/1", "tiny/2", "tiny/3"]


async def test_an_unloaded_model_is_listed_and_known_as_long_as_it_is_there(world: World):
    await world.catalogue.start()
    await world.catalogue.unload("tiny")
    both = [Entry("tiny", version, "UNAVAILABLE", "unloaded") for version in ("1", "2")]
    assert world.catalogue.entries() == [Entry("other", "1", "READY"), *both]
    with pytest.raises(NotReady, match="tiny was unloaded"):
        world.catalogue.get("tiny", "1")
    with pytest.raises(ModelNotFound, match="no version '9' of tiny; there are: 1, 2"):
        world.catalogue.get("tiny", "9")
    shutil.rmtree(world.root / "tiny" / "1")
    write_tiny_model(world.root, "tiny", 3)
    await world.catalogue.reload()
    assert [entry.version for entry in world.catalogue.entries() if entry.reason == "unloaded"] == ["2", "3"]
    shutil.rmtree(world.root / "tiny")
    await world.catalogue.reload()
    assert world.catalogue.entries() == [Entry("other", "1", "READY")]
    with pytest.raises(ModelNotFound, match="no model 'tiny'; there are: other"):
        world.catalogue.get("tiny")


async def test_a_model_that_was_unloaded_is_not_ready_while_it_is_loaded(world: World):
    await world.catalogue.start()
    await world.catalogue.unload("other")

    def ask() -> None:
        with pytest.raises(NotReady, match="unloaded"):
            world.catalogue.get("other")

    world.before_make = ask
    await world.catalogue.load("other")
    assert world.agreed() == ["other/1", "tiny/1", "tiny/2"]


async def test_loading_an_unknown_model_is_not_found(world: World):
    await world.catalogue.start()
    with pytest.raises(ModelNotFound, match="no model 'none'"):
        await world.catalogue.load("none")


async def test_draining_fails_readiness_but_still_answers(world: World):
    await world.catalogue.start()
    world.catalogue.drain()
    assert (world.catalogue.ready, world.catalogue.draining) == (False, True)
    assert world.catalogue.get().version == "2"


async def test_watchers_hear_of_every_change(world: World):
    heard: list[bool] = []
    hear: Callable[[], None] = lambda: heard.append(world.catalogue.ready)  # noqa: E731
    world.catalogue.watch(hear)
    await world.catalogue.start()
    await world.catalogue.unload("tiny")
    await world.catalogue.load("tiny")
    world.catalogue.drain()
    # To load is heard twice: version 1 answers until version 2 is there.
    assert heard == [False, True, False, True, True, False]
    await world.catalogue.reload()
    assert len(heard) == 6


async def test_an_unreadable_version_is_rejected_not_raised(world: World, monkeypatch: pytest.MonkeyPatch):
    (world.root / "tiny" / "2" / "manifest.json").unlink()
    await world.catalogue.start()
    assert Entry("tiny", "2", "UNAVAILABLE", world.catalogue.entries()[-1].reason) == world.catalogue.entries()[-1]
    assert world.catalogue.get().version == "1"


async def test_a_pipe_in_place_of_a_manifest_holds_nobody(world: World):
    await world.catalogue.start()
    path = world.root / "tiny" / "2" / "manifest.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ModelRejected, match=r"tiny version 2: place: found no file manifest\.json"):
        await asyncio.wait_for(world.catalogue.load("tiny"), 10)
    assert world.agreed() == ["other/1", "tiny/1", "tiny/2"]


async def test_two_exchanges_at_once_follow_one_another(world: World):
    await world.catalogue.start()
    write_tiny_model(world.root, "tiny", 3)
    await asyncio.gather(world.catalogue.reload(), world.catalogue.load("tiny"), world.catalogue.reload())
    assert world.made.count("tiny/3") == 1


async def test_while_models_are_loaded_every_question_is_answered_alike(world: World):
    seen: list[list[str]] = []
    world.before_make = lambda: seen.append(world.agreed())
    await world.catalogue.start()
    assert seen == [[], [], []]
    seen.clear()
    for name, version in (("another", 1), ("new", 1), ("new", 2), ("tiny", 3)):
        write_tiny_model(world.root, name, version)
    await world.catalogue.reload()
    first = ["another/1", "other/1", "tiny/1", "tiny/2"]
    assert seen == [
        ["other/1", "tiny/1", "tiny/2"],
        ["another/1", "other/1", "tiny/1", "tiny/2"],
        sorted([*first, "new/1"]),
        sorted([*first, "new/1", "new/2"]),
    ]
    assert world.agreed() == sorted([*first, "new/1", "new/2", "tiny/3"])


@pytest.fixture
async def pair(tmp_path: Path) -> tuple[World, World]:
    """Return two workers of one instance."""
    for name, version in (("tiny", 1), ("tiny", 2), ("other", 1)):
        write_tiny_model(tmp_path / "models", name, version)
    (tmp_path / "shared").mkdir()
    first, second = (World(tmp_path / "models", shared=tmp_path / "shared") for _ in range(2))
    await first.catalogue.start()
    await second.catalogue.start()
    return first, second


async def test_what_is_unloaded_by_order_is_gone_before_others_are_loaded(pair: tuple[World, World]):
    giver, follower = pair
    await giver.catalogue.unload("tiny")
    write_tiny_model(follower.root, "new", 1)
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(follower.agreed())
        with pytest.raises(NotReady, match="unloaded"):
            follower.catalogue.get("tiny")

    follower.before_make = look
    await follower.catalogue.follow()
    assert seen == [["other/1"]]
    assert follower.agreed() == ["new/1", "other/1"]


async def test_orders_to_two_workers_in_a_row_hold_on_both(pair: tuple[World, World]):
    first, second = pair
    await first.catalogue.unload("tiny")
    await second.catalogue.unload("other")
    await first.catalogue.follow()
    assert first.agreed() == second.agreed() == []
    await first.catalogue.load("tiny")
    # The second has not followed yet, and knows all the same what the first was told.
    await second.catalogue.unload("tiny")
    await first.catalogue.load("other")
    await second.catalogue.follow()
    assert first.agreed() == second.agreed() == ["other/1"]
    for each in pair:
        await each.catalogue.reload()
        await each.catalogue.follow()
    assert first.agreed() == second.agreed() == ["other/1"]


async def test_who_follows_an_order_to_load_finds_what_is_new(pair: tuple[World, World]):
    giver, follower = pair
    write_tiny_model(giver.root, "tiny", 3)
    await giver.catalogue.load("tiny")
    await giver.catalogue.follow()
    await follower.catalogue.follow()
    assert giver.agreed() == follower.agreed() == ["other/1", "tiny/1", "tiny/2", "tiny/3"]
    made = len(follower.made)
    await follower.catalogue.follow()
    assert len(follower.made) == made


async def test_an_order_whose_caller_leaves_is_carried_out_on_all_workers(pair: tuple[World, World]):
    giver, follower = pair
    await giver.catalogue.unload("tiny")
    await follower.catalogue.follow()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(20)

    giver.before_make = wait
    order = asyncio.create_task(giver.catalogue.load("tiny"))
    await begun.wait()
    order.cancel()
    with pytest.raises(asyncio.CancelledError):
        await order
    go_on.set()
    await giver.catalogue.reload()
    await follower.catalogue.follow()
    assert giver.agreed() == follower.agreed() == ["other/1", "tiny/1", "tiny/2"]


async def test_a_worker_that_comes_later_does_as_the_others_were_told(pair: tuple[World, World], tmp_path: Path):
    await pair[0].catalogue.unload("other")
    late = World(tmp_path / "models", shared=tmp_path / "shared")
    await late.catalogue.start()
    assert late.agreed() == ["tiny/1", "tiny/2"]
    assert late.catalogue.entries()[0] == Entry("other", "1", "UNAVAILABLE", "unloaded")


async def test_a_version_that_ended_another_worker_is_loaded_by_no_other(tmp_path: Path):
    for name, version in (("tiny", 1), ("tiny", 2), ("other", 1), ("third", 1)):
        folder = write_tiny_model(tmp_path / "models", name, version)
        if (name, version) in {("tiny", 2), ("other", 1)}:
            end_within_a_trial(tmp_path, hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest())
    world = World(tmp_path / "models", shared=tmp_path)
    await world.catalogue.start()
    assert world.agreed() == ["third/1", "tiny/1"] == world.made
    absent = [entry for entry in world.catalogue.entries() if entry.state == "UNAVAILABLE"]
    assert [(entry.name, entry.version) for entry in absent] == [("other", "1"), ("tiny", "2")]
    assert {entry.reason.partition(" that began")[0] for entry in absent} == {"loading: found the end of the process"}
    write_tiny_model(tmp_path / "models", "tiny", 3)
    await world.catalogue.reload()
    assert world.agreed() == ["third/1", "tiny/1", "tiny/3"]


async def test_the_last_version_of_the_default_model_is_loaded_whatever_happened_before(tmp_path: Path):
    for version in (1, 2):
        folder = write_tiny_model(tmp_path / "models", "tiny", version)
        end_within_a_trial(tmp_path, hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest())
    world = World(tmp_path / "models", shared=tmp_path)
    await world.catalogue.start()
    assert world.agreed() == ["tiny/2"] == world.made
    assert world.catalogue.ready

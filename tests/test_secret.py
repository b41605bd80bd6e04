"""Who can call a chief, and which names are safe."""

import re

import grpc
import pytest
from keras_tuner.src import protos
from test_oracles import Study

from tuner import trials
from tuner.searches import folder
from tuner.searches.records import OTHERS, WORKER, worker_name
from tuner.workers import secret, service
from zoo.errors import UserError

GIVEN = b"correct horse battery staple"
METHODS = ("GetSpace", "UpdateSpace", "CreateTrial", "UpdateTrial", "EndTrial", "GetTrial", "GetBestTrials")
ATTACKS = (
    "../victim", "/../../victim", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "0001/../../victim", "0001\n", "0001\0",
    "%2e%2e%2fvictim", "..%c0%afvictim", "\u2025/victim", "\uff10\uff10\uff11", "-1", "1e3", "0x1", "CON",
    "0001.json", "0" * 300, "search", "base", "journal", "$(touch victim)", "; touch victim", "{0}", " 0001", "~",
    "\u202e1000",
)  # fmt: skip


@pytest.fixture
def chief(monkeypatch):
    monkeypatch.setenv(secret.SECRET, GIVEN.decode())
    found = service.Chief(Study().oracle, "127.0.0.1", "0")
    yield found
    found.server.stop(None).wait()


def stub(chief, metadata=()):
    found = protos.get_service_grpc().OracleStub(grpc.insecure_channel(f"127.0.0.1:{chief.port}"))
    return lambda name, **fields: getattr(found, name)(
        getattr(protos.get_service(), f"{name}Request")(**fields), metadata=metadata, timeout=20
    )


def refusal(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **fields)
    return error.value.code()


@pytest.mark.parametrize(
    "metadata", [(), ((secret.KEY, b"wrong"),), ((secret.KEY, GIVEN[:-1]),), (("tuner-secret", "x"),)]
)
def test_without_the_secret_every_method_is_refused(chief, metadata):
    for method in METHODS:
        assert refusal(stub(chief, metadata), method) == grpc.StatusCode.UNAUTHENTICATED
    assert not chief.oracle.trials and not chief.oracle.tuner_ids


def test_with_the_secret_a_trial_is_handed_out(chief):
    found = stub(chief, ((secret.KEY, GIVEN),))("CreateTrial", tuner_id="tuner0")
    assert found.trial.trial_id == "0000"


def test_refusals_are_logged_in_one_line(chief, capsys):
    for method in METHODS:
        refusal(stub(chief), method)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "refused" in line]
    assert line.startswith("refused ipv4:127.0.0.1:") and line.endswith(": GetSpace with no secret")


def test_a_chief_that_others_can_reach_needs_a_secret(monkeypatch, tmp_path):
    monkeypatch.delenv(secret.SECRET, raising=False)
    for host in ("0.0.0.0", "192.0.2.1", "[::]", "no.such.host.invalid"):
        with pytest.raises(UserError, match="needs a secret: set TUNER_SECRET_FILE"):
            service.Chief(Study().oracle, host, "0")
    assert [secret.of(host) for host in ("127.0.0.1", "127.3.2.1", "[::1]", "localhost")] == [None] * 4

    path = tmp_path / "secret"
    path.write_bytes(GIVEN + b"\n")
    path.chmod(0o600)
    monkeypatch.setenv(secret.FILE, str(path))
    assert secret.of("192.0.2.1") == GIVEN
    path.chmod(0o640)
    with pytest.raises(UserError, match="must belong to this user"):
        secret.of("192.0.2.1")
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(UserError, match="16 to 1024 bytes; this one has 5"):
        secret.of("192.0.2.1")
    monkeypatch.setenv(secret.SECRET, "x" * 20)
    with pytest.raises(UserError, match="both set"):
        secret.of("192.0.2.1")


@pytest.mark.parametrize("method", ["EndTrial", "UpdateTrial", "GetTrial"])
def test_a_chief_refuses_invalid_names(chief, method):
    call = stub(chief, ((secret.KEY, GIVEN),))
    call("CreateTrial", tuner_id="tuner0")
    for name in ATTACKS:
        fields = {"trial_id": name}
        if method == "EndTrial":
            fields = {"trial": protos.get_proto().Trial(trial_id=name, status="COMPLETED")}
        assert refusal(call, method, **fields) == grpc.StatusCode.INVALID_ARGUMENT
    assert list(chief.oracle.trials) == ["0000"] and not chief.oracle.outcomes
    call("GetTrial", trial_id="0007")  # of no trial, and no failure: a chief may have lost its last event


def test_names_leave_no_file_outside(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine.txt").write_text("mine")
    search = tmp_path / "outer" / "search"
    (search / "trials").mkdir(parents=True)
    found = folder.SearchFolder(search)
    before = sorted(tmp_path.rglob("*"))
    for name in ATTACKS:
        for call, *arguments in (
            (trials.run, found, Study().search, None, name, {}, lambda *_: False),
            (found.promote, name, "0000"),
            (found.promote, "0000", name),
            (found.outcome, name),
        ):
            with pytest.raises(UserError):
                call(*arguments)
        if not re.fullmatch(WORKER, name) or name in OTHERS:
            with pytest.raises(UserError):
                found.at_work(name, None)
    assert sorted(tmp_path.rglob("*")) == before
    assert (victim / "mine.txt").read_text() == "mine"


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "config.json").write_text("mine")
    (victim / "model.keras").write_text("mine")
    (tmp_path / "search" / "trials").mkdir(parents=True)
    (tmp_path / "search" / "trials" / "0000").symlink_to(victim)
    (tmp_path / "search" / "trials" / "0001.json").symlink_to(victim / "config.json")
    found = folder.SearchFolder(tmp_path / "search")
    for call in (
        lambda: found.clear(found.path / "trials" / "0000"),
        lambda: found.outcome("0001"),
        lambda: trials.run(found, Study().search, None, "0001", {}, lambda *_: False),
    ):
        with pytest.raises(UserError, match="this link leads out of the search's folder"):
            call()
    assert {path.name: path.read_text() for path in victim.iterdir()} == {"config.json": "mine", "model.keras": "mine"}


def test_a_worker_has_a_name_for_files():
    assert worker_name("tuner0") == "tuner0"
    for name in ("../tuner0", "search", "Journal", "a/b", ".hidden", "a" * 65, ""):
        with pytest.raises(UserError, match="KERASTUNER_TUNER_ID"):
            worker_name(name)


def test_a_worker_learns_why_it_is_refused(chief, monkeypatch):
    monkeypatch.setenv(secret.SECRET, "another secret, as long")
    for name, value in (("IP", "127.0.0.1"), ("PORT", str(chief.port))):
        monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner0")
    with pytest.raises(UserError, match=f"127.0.0.1:{chief.port}: refused: this chief needs a secret"):
        service.Worker(lambda *_: None, lambda *_: None).search()

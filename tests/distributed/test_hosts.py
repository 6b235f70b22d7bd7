"""Workers on different hosts: their bytes go over the net that --collective-net names, or one line says what is wrong."""

import json
import subprocess

import torch
from support import WALDO, clean_environment, plain_python
from two_hosts import NET, two_hosts  # noqa: F401 (a fixture)

WIDE_BYTES = 4 * (8 * 700 + 700 + 700 * 700 + 700 + 700 * 4 + 4)  # the parameters of programs/wide.py, once
WIDE_STEPS = 6


def assert_one_line(said, *words):
    """The last line is the error that the program raised, and has all of it."""
    last = [line for line in said.strip().splitlines() if "rror: " in line][-1]
    for word in words:
        assert word in last, said


def test_training_over_two_hosts(two_hosts, program, tmp_path):  # noqa: F811
    """Goal: gradients go from worker to worker over that net, not through the clients; same bits as plain PyTorch."""
    for host in two_hosts.hosts:  # as its owner starts it
        daemon = subprocess.Popen(
            [*host.inside, WALDO, "daemon", "--collective-net", NET, "--ready-fd", "1"],
            env=clean_environment(**host.environment, XDG_STATE_HOME=host.state),
            stdout=subprocess.PIPE,
        )
        assert daemon.stdout.read(1) == b"+"
    before = [namespace.received_bytes("cable") for namespace in two_hosts.namespaces]
    out = tmp_path / "far"
    for code, said in two_hosts.train(program("wide.py"), out, stats=tmp_path):
        assert code == 0, said
    over_the_cable = [
        namespace.received_bytes("cable") - was for namespace, was in zip(two_hosts.namespaces, before, strict=True)
    ]
    plain_python(program("wide.py"), tmp_path / "plain", 2, OMP_NUM_THREADS=1).ok()
    for rank in range(2):
        far, plain = (torch.load(tmp_path / where / f"{rank}.pt") for where in ("far", "plain"))
        assert all(torch.equal(a, b) for a, b in zip(far, plain, strict=True))
        assert over_the_cable[rank] > WIDE_STEPS * WIDE_BYTES
        stats = json.loads((tmp_path / f"stats.{rank}").read_text())
        # The model goes there once and comes back once.
        assert stats["bytes_up"] < 1.5 * WIDE_BYTES and stats["bytes_down"] < 1.5 * WIDE_BYTES


def test_hosts_that_allow_loopback_only(two_hosts, program, tmp_path):  # noqa: F811
    for code, said in two_hosts.train(program("wide.py"), tmp_path / "out", GROUP_SECONDS=20):
        assert code != 0
        assert_one_line(said, "DistBackendError", "are on different hosts", "--collective-net")


def test_a_host_without_an_address_in_the_net(two_hosts, program, tmp_path):  # noqa: F811
    (_, first), (_, second) = two_hosts.train(
        program("wide.py"), tmp_path / "out", nets=[NET, "10.78.0.0/16"], GROUP_SECONDS=20
    )
    assert_one_line(second, "DistBackendError", "10.78.0.0/16", "no address in it", "10.77.0.2/24 (cable)", "Try: ")
    assert "rror: " in first  # nobody came
    refused = subprocess.run(
        [*two_hosts.hosts[0].inside, WALDO, "daemon", "--collective-net", "10.78.0.0/16"],
        env=clean_environment(**two_hosts.hosts[0].environment),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2 and "no address in it" in refused.stderr, refused


def test_hosts_that_do_not_reach_each_other(two_hosts, program, tmp_path):  # noqa: F811
    """Method: the second host keeps its address, but its end of the cable is pulled."""
    two_hosts.namespaces[1].run("ip", "address", "add", "10.77.0.2/24", "dev", "lo")
    two_hosts.namespaces[1].run("ip", "link", "set", "cable", "down")
    for code, said in two_hosts.train(program("wide.py"), tmp_path / "out", nets=[NET, NET], GROUP_SECONDS=20):
        assert code != 0
        assert_one_line(said, "DistBackendError", "do not reach each other in 10.77.0.0/24", "Try: ", "10.77.0.")

"""Two hosts that share one net and nothing else: two network namespaces with a cable between them.

The programs themselves run outside of both, each with its link (tools/bad_ssh.py) to the worker of one of them.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from host import Host

NET = "10.77.0.0/24"


class Namespace:
    """A network namespace, held by a process that does nothing else."""

    def __init__(self, inside=()):
        new = ["unshare", "--net"] if os.geteuid() == 0 or inside else ["unshare", "--net", "--user", "--map-root-user"]
        self.holder = subprocess.Popen(
            [*inside, *new, "sh", "-c", "echo there; exec sleep 600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if self.holder.stdout.readline() != b"there\n":
            why = self.holder.communicate()[1].decode().strip()
            raise OSError(why or "unshare said nothing")
        options = ["--net"] if os.geteuid() == 0 else ["--net", "--user", "--preserve-credentials"]
        self.inside = ["nsenter", "--target", str(self.holder.pid), *options]

    def run(self, *words):
        ran = subprocess.run([*self.inside, *map(str, words)], capture_output=True, text=True)
        if ran.returncode != 0:
            raise OSError(f"{' '.join(map(str, words))}: {ran.stderr.strip()}")

    def received_bytes(self, interface):
        for line in Path(f"/proc/{self.holder.pid}/net/dev").read_text().splitlines():
            name, _, numbers = line.strip().partition(":")
            if name == interface:
                return int(numbers.split()[0])
        raise LookupError(interface)

    def close(self):
        self.holder.kill()
        self.holder.communicate()


def _cable(namespaces):
    first, second = namespaces
    first.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second.holder.pid)
    for number, namespace in enumerate(namespaces, 1):
        namespace.run("ip", "address", "add", f"10.77.0.{number}/24", "dev", "cable")
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "link", "set", "cable", "up")


class TwoHosts:
    def __init__(self, folder, namespaces):
        self.namespaces = namespaces
        self.hosts = []
        for name, namespace in zip("ab", namespaces, strict=True):
            (folder / name).mkdir()
            self.hosts.append(Host(folder / name, namespace.inside))

    def train(self, program, out, nets=(None, None), stats=None, **environment):
        """Rank 0 on the first host, rank 1 on the second: [(exit code, what it wrote to stderr)].

        `nets`: what each host allows; `stats`: a folder for each rank's stats.RANK."""
        out.mkdir(exist_ok=True)
        ranks = []
        for rank, host in enumerate(self.hosts):
            more = {"RANK": rank, "LOCAL_RANK": 0, "OMP_NUM_THREADS": 1, **environment}
            if nets[rank]:
                more["WALDO_COLLECTIVE_NET"] = nets[rank]
            options = [f"--stats={stats}/stats.{rank}"] if stats else []
            ranks.append(host.start(program, out, 2, options=options, stdout=subprocess.DEVNULL, **more))
        said = [process.communicate(timeout=300)[1] for process in ranks]
        return [(process.returncode, text) for process, text in zip(ranks, said, strict=True)]

    def close(self):
        for host in self.hosts:
            host.close()


@pytest.fixture
def two_hosts():
    namespaces = []
    try:
        namespaces.append(Namespace())
        # The second within the first one's user namespace, so that the cable may be laid without being root.
        namespaces.append(
            Namespace(() if os.geteuid() == 0 else [*namespaces[0].inside[:3], "--user", "--preserve-credentials"])
        )
        _cable(namespaces)
    except OSError as error:
        for namespace in namespaces:
            namespace.close()
        pytest.skip(f"two hosts need network namespaces, which this system does not give: {error}")
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        hosts = TwoHosts(Path(folder), namespaces)
        yield hosts
        hosts.close()
    for namespace in namespaces:
        namespace.close()

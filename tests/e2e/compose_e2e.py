"""Container tests: the unmodified compose file, started for real and used by real clients.

Needs a Docker Engine with the compose plugin, nats-py, node and the npm package nats
(UNIFIED_NATS_NODE_CLIENT names the directory that holds its node_modules). Prints PASS or FAIL
for each test and ends with the line `N passed, N failed`. Everything it started is removed.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

REPO = Path(__file__).resolve().parents[2]
CONTAINER = "marketprism-nats-unified"
RUN = f"unified-nats-e2e-{os.getpid()}"
STREAM = "MARKET_DATA"
DATA_TYPES = [
    "orderbook-data",
    "trade-data",
    "funding-rate-data",
    "open-interest-data",
    "lsr-top-position-data",
    "lsr-all-account-data",
    "volatility_index-data",
    "liquidation-data",
]
SUBJECTS = [f"{data_type}.okx_derivatives.perpetual.BTC-USDT-SWAP" for data_type in DATA_TYPES]
USER = "collector"
PASSWORD = 'e2e-Secret "quoted" $HOME #1'
GRACE_PERIOD = 30
LOG_FIELDS = ["timestamp", "level", "logger", "message", "service"]


# ---- commands and conditions ----


def docker(*args, check=True, timeout=120):
    """Runs docker and returns its result, output captured as text."""
    result = subprocess.run(
        ["docker", *args], text=True, capture_output=True, timeout=timeout, env=CLEAN_ENV
    )
    if check and result.returncode != 0:
        last = "\n".join((result.stdout + result.stderr).splitlines()[-40:])
        raise AssertionError(f"docker {' '.join(args)} ended with {result.returncode}\n{last}")
    return result


def clean_environment():
    """The environment without settings of the broker: those would win over our env file."""
    kept = ("PATH", "HOME", "TERM", "LANG", "TMPDIR", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith("DOCKER_") or name.lower().endswith("_proxy")
    }


CLEAN_ENV = clean_environment()


def wait_until(what, condition, deadline):
    """Waits until condition() is true and returns the seconds it took."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > deadline:
            raise AssertionError(f"{what}: not within {deadline} s")
        time.sleep(0.1)
    return time.monotonic() - started


def free_ports(count):
    """Distinct loopback ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free_subnet():
    """A /24 that neither a Docker network nor a route of this machine uses."""
    taken = []
    for network in docker("network", "ls", "-q").stdout.split():
        configs = json.loads(
            docker("network", "inspect", network, "--format", "{{json .IPAM.Config}}").stdout
        )
        taken += [ipaddress.ip_network(config["Subnet"]) for config in configs or []]
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        _, destination, _, _, _, _, _, mask = line.split()[:8]
        address = ipaddress.ip_address(int.from_bytes(bytes.fromhex(destination), "little"))
        bits = bin(int(mask, 16)).count("1")
        if bits:
            taken.append(ipaddress.ip_network(f"{address}/{bits}"))
    candidates = list(ipaddress.ip_network("10.192.0.0/11").subnets(new_prefix=24))
    random.shuffle(candidates)
    return next(
        str(candidate)
        for candidate in candidates
        if not any(candidate.overlaps(network) for network in taken if network.version == 4)
    )


def inspect(container):
    return json.loads(docker("inspect", container).stdout)[0]


def health(container):
    """Docker's verdict; a container that has ended is an error at once."""
    state = inspect(container)["State"]
    if not state["Running"]:
        logs = docker("logs", "--tail", "20", container)
        raise AssertionError(
            f"{container} ended with {state['ExitCode']}\n{logs.stdout}{logs.stderr}"
        )
    return state["Health"]["Status"]


def wait_healthy(container, deadline=120):
    try:
        took = wait_until(
            f"{container} healthy", lambda: health(container) == "healthy", deadline
        )
    except AssertionError:
        for probe in inspect(container)["State"].get("Health", {}).get("Log", [])[-2:]:
            print(f"  probe: {probe['ExitCode']} {probe['Output']}")
        logs = docker("logs", "--tail", "20", container)
        print(logs.stdout + logs.stderr)
        raise
    print(f"  healthy after {took:.1f} s")


def stop(container):
    """docker stop; returns the seconds it took. Exit 0 and no SIGKILL are asserted."""
    started = time.monotonic()
    docker("stop", container)
    took = time.monotonic() - started
    state = inspect(container)["State"]
    print(f"  stopped in {took:.1f} s with exit code {state['ExitCode']}")
    assert state["ExitCode"] == 0, f"exit code {state['ExitCode']} after docker stop"
    assert took < GRACE_PERIOD, f"docker stop took {took:.1f} s"
    return took


def processes(container):
    """Host process ids of the container: {pid: name}."""
    lines = docker("top", container, "-eo", "pid,comm").stdout.splitlines()[1:]
    return {int(pid): name for pid, name in (line.split(None, 1) for line in lines)}


# ---- the deployment under test ----


class Deployment:
    """The compose project, with its settings in an env file of its own."""

    def __init__(self, directory):
        self.env_file = directory / "e2e.env"
        self.nats_port, http_port, self.api_port = free_ports(3)
        self.settings = {
            "VERSION": RUN,
            "VCS_REF": "e2e",
            "NATS_PORT": self.nats_port,
            "NATS_HTTP_PORT": http_port,
            "API_PORT": self.api_port,
            "NETWORK_SUBNET": free_subnet(),
        }
        self.configure()

    def configure(self, **settings):
        """Writes the env file; single quotes make values literal."""
        lines = [f"{name}='{value}'" for name, value in {**self.settings, **settings}.items()]
        self.env_file.write_text("\n".join(lines) + "\n")

    def compose(self, *args, timeout=120):
        return docker(
            "compose",
            *("--project-name", RUN),
            *("--env-file", str(self.env_file)),
            *("--file", str(REPO / "docker-compose.unified.yml")),
            *args,
            timeout=timeout,
        )

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.nats_port}"


@contextlib.asynccontextmanager
async def client(url, **options):
    """A connection that reports the end of the server instead of hiding it by reconnecting."""

    async def ignore(_error):
        pass

    connection = await nats.connect(
        url, connect_timeout=5, allow_reconnect=False, error_cb=ignore, **options
    )
    try:
        yield connection
    finally:
        if not connection.is_closed:
            await connection.close()


async def publish_all(connection, text):
    """Publishes one message to each family; returns {sequence: (subject, data)}."""
    jetstream = connection.jetstream()
    published = {}
    for subject in SUBJECTS:
        data = f"{text} {subject}".encode()
        ack = await jetstream.publish(subject, data, headers={"Nats-Msg-Id": data.decode()})
        assert not ack.duplicate, f"{subject} was taken for a duplicate"
        published[ack.seq] = (subject, data)
    return published


async def read_all(connection, durable=None, limit=None):
    """Reads and acknowledges the messages of the stream: {sequence: (subject, data)}."""
    jetstream = connection.jetstream()
    subscription = await jetstream.pull_subscribe(
        ">",
        durable=durable,
        stream=STREAM,
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.EXPLICIT, filter_subject=None
        ),
    )
    messages = {}
    while limit is None or len(messages) < limit:
        if (await subscription.consumer_info()).num_pending == 0:
            break
        batch = min(100, limit - len(messages)) if limit else 100
        for message in await subscription.fetch(batch, timeout=5):
            messages[message.metadata.sequence.stream] = (message.subject, message.data)
            await message.ack_sync()
    return messages


# ---- tests, in this order ----
#
# Each is given the deployment and a dictionary in which it leaves what later ones compare with.


def test_compose_up_builds_and_starts_the_unmodified_file(deployment, _seen):
    started = time.monotonic()
    deployment.compose("up", "--detach", "--build", timeout=1500)
    print(f"  build and start: {time.monotonic() - started:.0f} s")
    size = int(docker("image", "inspect", IMAGE, "--format", "{{.Size}}").stdout)
    print(f"  image: {size / 1e6:.1f} MB")
    wait_healthy(CONTAINER)


def test_container_is_locked_down(_deployment, _seen):
    container = inspect(CONTAINER)
    host = container["HostConfig"]
    assert container["Config"]["User"] == "1000:0", container["Config"]["User"]
    assert host["ReadonlyRootfs"], "the root file system can be written"
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"], host["CapDrop"]
    assert "no-new-privileges:true" in host["SecurityOpt"], host["SecurityOpt"]
    assert host["PidsLimit"] == 512 and host["Memory"] == 2 * 1024**3, host
    for port, bindings in container["NetworkSettings"]["Ports"].items():
        for binding in bindings or []:
            assert binding["HostIp"] == "127.0.0.1", f"{port} is published on {binding}"

    names = processes(CONTAINER)
    assert sorted(names.values()) == ["nats-server", "unified-nats"], names
    assert names[container["State"]["Pid"]] == "unified-nats", names
    for pid in names:
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:\s+1000\s+1000\s+1000\s+1000$", status, re.M), status
        assert re.search(r"^CapEff:\s+0+$", status, re.M), status
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.M), status


def test_image_metadata(_deployment, _seen):
    config = json.loads(docker("image", "inspect", IMAGE, "--format", "{{json .Config}}").stdout)
    assert config["Labels"]["org.opencontainers.image.version"] == RUN, config["Labels"]
    assert config["Labels"]["org.opencontainers.image.revision"] == "e2e", config["Labels"]
    assert config["Entrypoint"] == ["/usr/local/bin/unified-nats"] and not config.get("Cmd"), config
    assert config["StopSignal"] == "SIGTERM", config["StopSignal"]


def test_stream_has_the_eight_families(deployment, _seen):
    async def run():
        async with client(deployment.url) as connection:
            return await connection.jetstream().stream_info(STREAM)

    config = asyncio.run(run()).config
    wanted = sorted(f"{data_type}.>" for data_type in DATA_TYPES)
    assert sorted(config.subjects) == wanted, config.subjects


def test_python_client_publishes_and_reads_every_family(deployment, seen):
    async def run():
        async with client(deployment.url) as connection:
            published = await publish_all(connection, "python")
            stored = await read_all(connection)
            missing = {seq: msg for seq, msg in published.items() if stored.get(seq) != msg}
            assert not missing, f"not read back: {missing}"
            seen["stored"] = stored

    asyncio.run(run())


def test_node_client_publishes_and_reads_every_family(deployment, seen):
    result = subprocess.run(
        ["node", str(REPO / "tests/e2e/node_client.mjs"), deployment.url, STREAM, *SUBJECTS],
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout)
    stored = {one["seq"]: (one["subject"], one["data"].encode()) for one in answer["read"]}
    assert len(answer["published"]) == len(SUBJECTS), answer["published"]
    for one in answer["published"]:
        assert stored[one["seq"]] == (one["subject"], one["data"].encode()), one
    for seq, message in seen["stored"].items():
        assert stored[seq] == message, f"{seq}: {stored[seq]} is not {message}"
    seen["stored"] = stored


def runbook(*command, status=0):
    result = docker("exec", CONTAINER, *command, check=False)
    assert result.returncode == status, (
        f"{' '.join(command)} ended with {result.returncode}, not {status}\n"
        f"{result.stdout}{result.stderr}"
    )
    return result


def test_runbook_commands(_deployment, _seen):
    runbook("health_check", "full")
    runbook("health_check", "quick")
    runbook("unified-nats", "health-check", "full")
    runbook("/app/scripts/health_check.sh", "full")
    runbook("/app/scripts/config_renderer.py", "--validate")
    runbook("config_renderer", "--validate")
    runbook("python3", "/app/scripts/config_renderer.py", "--validate")


def test_python3_refuses_what_it_does_not_know(_deployment, _seen):
    runbook("python3", "/etc/passwd", status=64)
    runbook("python3", "-c", "print(1)", status=64)
    runbook("python3", status=64)


def test_logs_are_json_lines(_deployment, _seen):
    lines = docker("logs", CONTAINER).stdout.splitlines()
    assert lines, "nothing was logged"
    loggers = set()
    for line in lines:
        event = json.loads(line)
        assert list(event)[: len(LOG_FIELDS)] == LOG_FIELDS, line
        stamp = event["timestamp"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp), stamp
        loggers.add(event["logger"])
    assert "nats-server" in loggers, loggers


def test_log_file_is_written(_deployment, _seen):
    text = docker("cp", f"{CONTAINER}:/var/log/nats/nats.log", "-").stdout
    assert "Server is ready" in text, text[:2000]


def test_stop_under_load_is_clean_and_loses_nothing(deployment, seen):
    async def run():
        acknowledged = {}
        async with client(deployment.url) as connection:
            half = len(seen["stored"]) // 2
            first = await read_all(connection, durable="e2e-durable", limit=half)
            assert len(first) == half, f"{len(first)} messages read, not {half}"
            seen["durable"] = first

            jetstream = connection.jetstream()
            stopping = asyncio.create_task(asyncio.to_thread(stop, CONTAINER))
            number = 0
            while not stopping.done():
                number += 1
                data = f"during stop {number}".encode()
                try:
                    ack = await jetstream.publish(SUBJECTS[1], data, timeout=2)
                except (NatsError, OSError):
                    break
                acknowledged[ack.seq] = (SUBJECTS[1], data)
            await stopping
        print(f"  {len(acknowledged)} messages acknowledged while stopping")
        assert acknowledged, "nothing was published while stopping"
        seen["stored"] |= acknowledged

    asyncio.run(run())


def test_everything_is_there_after_down_and_up(deployment, seen):
    deployment.compose("down")
    deployment.compose("up", "--detach")
    wait_healthy(CONTAINER)

    async def run():
        async with client(deployment.url) as connection:
            stored = await read_all(connection)
            lost = {seq: msg for seq, msg in seen["stored"].items() if stored.get(seq) != msg}
            assert not lost, f"{len(lost)} messages lost or changed, e.g. {next(iter(lost.items()))}"
            # A message may have been stored whose acknowledgement the stop cut off; no other.
            assert len(stored) - len(seen["stored"]) <= 1, (len(stored), len(seen["stored"]))

            rest = await read_all(connection, durable="e2e-durable")
            assert not rest.keys() & seen["durable"].keys(), "messages were delivered again"
            assert rest.keys() | seen["durable"].keys() == stored.keys(), "messages were left out"
            seen["stored"] = stored

    asyncio.run(run())


def readme_example(language):
    """The README's block in that language that connects, as it stands there."""
    text = (REPO / "README.md").read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1, f"{len(blocks)} blocks of {language}"
    return blocks[0]


def test_readme_examples_run(deployment, _seen):
    modules = Path(os.environ["UNIFIED_NATS_NODE_CLIENT"]) / "node_modules"
    with tempfile.TemporaryDirectory(prefix="unified-nats-readme-") as directory:
        (Path(directory) / "node_modules").symlink_to(modules)
        for language, name, program in [
            ("python", "example.py", sys.executable),
            ("javascript", "example.mjs", "node"),
        ]:
            default = "nats://127.0.0.1:4222"
            text = readme_example(language)
            assert default in text, text
            file = Path(directory) / name
            file.write_text(text.replace(default, deployment.url))
            result = subprocess.run(
                [program, str(file)], text=True, capture_output=True, timeout=60, check=False
            )
            assert result.returncode == 0, result.stdout + result.stderr
            assert "stored as MARKET_DATA" in result.stdout, result.stdout


def test_authentication(deployment, seen):
    deployment.configure(
        NATS_AUTH_ENABLED="true", NATS_AUTH_USERNAME=USER, NATS_AUTH_PASSWORD=PASSWORD
    )
    deployment.compose("up", "--detach")
    wait_healthy(CONTAINER)

    async def connects(**options):
        async with client(deployment.url, **options) as connection:
            return await read_all(connection)

    async def refused(**options):
        try:
            await connects(**options)
        except NatsError as error:
            assert "authorization" in str(error).lower(), error
            return
        raise AssertionError(f"let in with {options}")

    async def run():
        stored = await connects(user=USER, password=PASSWORD)
        assert seen["stored"].items() <= stored.items()
        await refused()
        await refused(user=USER, password=PASSWORD + "x")
        await refused(user=USER, password="")

    asyncio.run(run())


def test_commands_work_with_authentication(_deployment, _seen):
    runbook("health_check", "full")
    runbook("/app/scripts/health_check.sh", "quick")
    runbook("config_renderer", "--validate")


def test_no_secret_shows(_deployment, _seen):
    logs = docker("logs", CONTAINER)
    places = {
        "docker logs": logs.stdout + logs.stderr,
        "nats.log": docker("cp", f"{CONTAINER}:/var/log/nats/nats.log", "-").stdout,
        "config summary": runbook("config_renderer", "--summary").stdout,
    }
    for pid, name in processes(CONTAINER).items():
        places[f"arguments of {name}"] = Path(f"/proc/{pid}/cmdline").read_text()
        # Docker itself puts the settings into the environment of process 1.
        if name == "nats-server":
            places[f"environment of {name}"] = Path(f"/proc/{pid}/environ").read_text()
    showing = [place for place, text in places.items() if "e2e-Secret" in text]
    assert not showing, f"the password shows in {', '.join(showing)}"


def test_stop_with_authentication(deployment, _seen):
    stop(CONTAINER)
    deployment.compose("down", "--volumes")


def test_runs_under_another_uid_with_a_secret_file(deployment, _seen):
    name = f"{RUN}-uid"
    secret = deployment.env_file.with_name("password")
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o444)
    secret.parent.chmod(0o755)
    docker(
        *("run", "--detach", "--name", name, "--user", "12345:0"),
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--publish", "127.0.0.1::4222"),
        *("--volume", f"{secret}:/run/secrets/password:ro"),
        *("--env", "NATS_AUTH_ENABLED=true", "--env", f"NATS_AUTH_USERNAME={USER}"),
        *("--env", "NATS_AUTH_PASSWORD_FILE=/run/secrets/password"),
        IMAGE,
    )
    wait_healthy(name)
    port = docker("port", name, "4222/tcp").stdout.strip().rsplit(":", 1)[1]

    async def run():
        url = f"nats://127.0.0.1:{port}"
        async with client(url, user=USER, password=PASSWORD) as connection:
            published = await publish_all(connection, "other uid")
            assert await read_all(connection) == published

    asyncio.run(run())
    for pid in processes(name):
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:\s+12345\s", status, re.M), status
    stop(name)
    docker("rm", "--volumes", name)


def test_wrong_settings_end_with_78(_deployment, _seen):
    result = docker(
        *("run", "--rm", "--name", f"{RUN}-wrong"),
        *("--env", "NATS_PORT=abc", "--env", "STREAM_REPLICAS=2", IMAGE),
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 78, f"{result.returncode}\n{output}"
    assert "NATS_PORT" in output and "STREAM_REPLICAS" in output, output


def test_debug_image_has_a_shell(_deployment, _seen):
    docker(
        *("build", "--quiet", "--target", "debug", "--tag", DEBUG_IMAGE),
        # The compile must come from the cache, so its arguments have to be the same.
        *("--build-arg", "VCS_REF=e2e", "--file", str(REPO / "Dockerfile.unified"), str(REPO)),
        timeout=600,
    )
    script = "id -u && command -v unified-nats nats-server && test -w /data/jetstream"
    result = docker(
        *("run", "--rm", "--name", f"{RUN}-debug", "--entrypoint", "sh", DEBUG_IMAGE, "-c", script)
    )
    assert result.stdout.splitlines()[0] == "1000", result.stdout


def test_a_stock_nats_server_beside_ours(deployment, _seen):
    """The server stays the stock one: it goes away and comes back, and finds its streams."""
    nats_port, api_port = free_ports(2)
    deployment.configure(NATS_PORT=nats_port, API_PORT=api_port)
    ours, server = (f"{RUN}-external-{name}-1" for name in ("unified-nats", "nats"))

    def compose(*args):
        return docker(
            *("compose", "--project-name", f"{RUN}-external"),
            *("--env-file", str(deployment.env_file)),
            *("--file", str(REPO / "deploy/compose/external.yml"), *args),
            timeout=900,
        )

    async def publish_and_read():
        async with client(f"nats://127.0.0.1:{nats_port}") as connection:
            await publish_all(connection, f"external {time.monotonic()}")
            return len(await read_all(connection))

    try:
        compose("up", "--detach", "--build")
        wait_healthy(ours)
        assert asyncio.run(publish_and_read()) == len(SUBJECTS)
        assert set(processes(ours).values()) == {"unified-nats"}, processes(ours)
        for command in (["selftest"], ["health-check", "full"], ["streams", "check"]):
            docker("exec", ours, "unified-nats", *command)
        docker("kill", server)
        wait_until("it is told", lambda: health(ours) == "unhealthy", 60)
        docker("start", server)
        wait_healthy(ours)
        assert asyncio.run(publish_and_read()) == 2 * len(SUBJECTS)
        stop(ours)
    finally:
        compose("down", "--volumes", "--timeout", "5")


class ClusterDeployment:
    """The unmodified compose file of three nodes, on the image that the tests before have built."""

    def __init__(self, directory):
        self.project = f"{RUN}-cluster"
        self.env_file = directory / "cluster.env"
        ports = free_ports(9)
        self.nats_ports = ports[:3]
        names = [f"{name}_{n}" for name in ("NATS_PORT", "NATS_HTTP_PORT", "API_PORT") for n in (1, 2, 3)]
        settings = dict(zip(names, ports), VERSION=RUN, NATS_CLUSTER_PASSWORD=PASSWORD)
        self.env_file.write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))

    def compose(self, *args, env_file=None, check=True):
        return docker(
            "compose",
            *("--project-name", self.project),
            *("--env-file", str(env_file or self.env_file)),
            *("--file", str(REPO / "deploy/compose/cluster.yml")),
            *args,
            check=check,
            timeout=300,
        )

    def container(self, node):
        return self.compose("ps", "--all", "--quiet", f"nats-{node}").stdout.strip()

    @property
    def urls(self):
        return [f"nats://127.0.0.1:{port}" for port in self.nats_ports]


@contextlib.contextmanager
def cluster(deployment):
    """The cluster of the compose file, gone at the end."""
    nodes = ClusterDeployment(deployment.env_file.parent)
    try:
        yield nodes
    finally:
        nodes.compose("down", "--volumes", "--timeout", "5", check=False)


async def publish_until(urls, done):
    """Publishes as a collector does until done() and gives what was acknowledged."""

    async def ignore(_error):
        pass

    connection = await nats.connect(urls, reconnect_time_wait=0.1, error_cb=ignore)
    acknowledged, longest, last = set(), 0.0, time.monotonic()
    while not done():
        data = f"during the roll {len(acknowledged)}"
        while True:
            try:
                headers = {"Nats-Msg-Id": data}
                await connection.jetstream().publish(
                    SUBJECTS[1], data.encode(), timeout=1, headers=headers
                )
                break
            except (NatsError, OSError):
                await asyncio.sleep(0.05)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        acknowledged.add(data)
        await asyncio.sleep(0.01)
    await connection.close()
    print(f"  {len(acknowledged)} messages acknowledged, longest gap {longest:.2f} s")
    return acknowledged


def test_cluster_needs_a_password_between_the_nodes(deployment, _seen):
    with cluster(deployment) as nodes:
        refused = nodes.compose("config", "-q", env_file="/dev/null", check=False)
        assert refused.returncode != 0 and "NATS_CLUSTER_PASSWORD" in refused.stderr, refused


def test_cluster_of_three_rolls_a_node_under_traffic(deployment, _seen):
    with cluster(deployment) as nodes:
        nodes.compose("up", "--detach")
        for node in (1, 2, 3):
            container = nodes.container(node)
            wait_healthy(container)
            host = inspect(container)["HostConfig"]
            assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"], host
            assert "no-new-privileges:true" in host["SecurityOpt"], host["SecurityOpt"]

        rolled = nodes.container(2)

        def roll():
            stop(rolled)
            docker("start", rolled)
            wait_healthy(rolled)

        async def run():
            async with client(nodes.urls) as connection:
                published = await publish_all(connection, "cluster")
                info = await connection.jetstream().stream_info(STREAM)
                assert info.config.num_replicas == 3 and len(info.cluster.replicas) == 2, info
            rolling = asyncio.create_task(asyncio.to_thread(roll))
            acknowledged = await publish_until(nodes.urls, rolling.done)
            await rolling
            # Asked of the node that was away.
            async with client(nodes.urls[1]) as connection:
                stored = await read_all(connection)
            assert published.items() <= stored.items(), published
            lost = acknowledged - {data.decode() for _, data in stored.values()}
            assert acknowledged and not lost, f"{len(lost)} messages lost, e.g. {next(iter(lost))}"

        asyncio.run(run())
        full = docker("exec", nodes.container(1), "health_check", "full")
        assert "3 of 3 nodes are here" in full.stdout, full.stdout
        logs = "".join(docker("logs", nodes.container(node)).stdout for node in (1, 2, 3))
        assert "e2e-Secret" not in logs, "the password shows in the logs"
        for node in (1, 2, 3):
            stop(nodes.container(node))


# ---- runner ----

IMAGE = f"marketprism/unified-nats:{RUN}"
DEBUG_IMAGE = f"marketprism/unified-nats-debug:{RUN}"


def clean_up(deployment):
    """Removes what the tests created; goes on when a part of it was never there."""
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        deployment.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
    names = docker("ps", "--all", "--quiet", "--filter", f"name={RUN}", check=False).stdout.split()
    if names:
        docker("rm", "--force", "--volumes", *names, check=False)
    docker("image", "rm", "--force", IMAGE, DEBUG_IMAGE, check=False)


def run_tests(deployment):
    """Runs every test in order; without a running deployment the rest cannot pass either."""
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_") and callable(f)]
    passed = failed = 0
    seen = {}
    for name, test in tests:
        if failed and not passed:
            print(f"FAIL {name}: the deployment did not start")
            failed += 1
            continue
        started = time.monotonic()
        try:
            test(deployment, seen)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc(file=sys.stdout)
            print(f"FAIL {name}")
            failed += 1
        else:
            print(f"PASS {name} ({time.monotonic() - started:.1f} s)")
            passed += 1
    return passed, failed


def main():
    for tool in ("docker", "node"):
        if not shutil.which(tool):
            sys.exit(f"cannot run the container tests: {tool} is not installed")
    if "UNIFIED_NATS_NODE_CLIENT" not in os.environ:
        sys.exit(
            "cannot run the container tests: UNIFIED_NATS_NODE_CLIENT has to name the directory"
            " into which npm installed nats; scripts/test.sh does that"
        )
    if docker("ps", "--all", "--quiet", "--filter", f"name=^{CONTAINER}$").stdout:
        sys.exit(
            f"cannot run the container tests: a container {CONTAINER} exists on this machine, and"
            " the compose file allows one of that name; stop and remove it first"
        )
    # A terminated run has to clean up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="unified-nats-e2e-") as directory:
        deployment = Deployment(Path(directory))
        try:
            passed, failed = run_tests(deployment)
        finally:
            clean_up(deployment)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""C bundles on this machine: what they hold, and that C programs of them give the interpreter's bits."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from c_harness import SANITIZED, STRICT, WHOLE, answers, assert_right, build, bundle, check, parts, run
from conftest import ROOT
from graphs import Net, inputs_of
from graphs import run as interpreted
from test_target_plain import recurrent, streamed
from typer.testing import CliRunner, Result

from ldsnn_compiler.cli.app import app
from ldsnn_compiler.driver import compile_c
from ldsnn_compiler.errors import BundleError, LdsnnError
from ldsnn_compiler.ir.graph import Graph
from ldsnn_compiler.ir.neuron import neuron
from ldsnn_compiler.ir.store import read_graph, write_graph
from ldsnn_compiler.runtime import load
from ldsnn_compiler.targets.c import CBundle
from ldsnn_compiler.targets.c.names import made_name, network_name, parameters
from ldsnn_compiler.targets.c.objects import LIBC, LIBM


def image_net(seed: int = 0) -> Graph:
    """Two event layers and a pool, spikes and membranes out, states that do not start at zero."""
    net = Net(8, seed)
    x = net.neuron(net.conv(net.input((2, 6, 6)), 5), neuron("if", v_init=0.25))
    x = net.neuron(net.conv(net.pool(x), 70), neuron("lif", tau=2.0))
    y = net.neuron(net.linear(net.op("flatten", x), 3), neuron("if"), membrane=True)
    return net.output(y, y.node.results[1])


def recurrent_net() -> Graph:
    """A cycle through a delay, and a readout."""
    net = Net(4, 3)
    x = net.recurrent(net.linear(net.op("flatten", net.input((1, 4, 4))), 6), neuron("leaky", beta=0.5, compare="gt"))
    return net.output(net.op("readout", net.linear(x, 3), mode="mean"), x)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[CBundle, Path]:
    folder = tmp_path_factory.mktemp("c") / "net"
    return bundle(image_net(), folder), folder


def test_runs_steps_and_state_are_the_interpreters_with_sanitizers(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    c, folder = made
    program = build([folder / "main.c", *parts(folder)], tmp_path / "program", flags=(*STRICT, *SANITIZED))
    assert_right(c, answers(c, folder, program))


def test_a_cycle_and_a_readout(tmp_path: Path) -> None:
    check(recurrent_net(), tmp_path / "net")


@pytest.mark.parametrize("make", [image_net, recurrent_net])
def test_whole_numbers(make: Callable[[], Graph], tmp_path: Path) -> None:
    c = check(make(), tmp_path / "net", **WHOLE)
    assert c.settings.numerics == "int" and {held.dtype for held in c.network.state} == {"int32"}
    assert "this is a network of whole numbers" in (tmp_path / "net" / "README.md").read_text()


@pytest.mark.parametrize("make", [streamed, recurrent])
def test_whatever_carries_state(make: Callable[[], Graph], tmp_path: Path) -> None:
    """Delays, readouts of all modes, an encoder that asks the time, a cycle; answers once a call among the outputs."""
    check(make(), tmp_path / "net", pipeline="")


def test_a_batch(tmp_path: Path) -> None:
    c = check(image_net(), tmp_path / "net", batch=3)
    assert "#define NET_BATCH 3\n" in (tmp_path / "net" / "net.h").read_text()
    assert c.network.inputs[0].shape == (8, 3, 2, 6, 6)


def test_a_static_input_that_is_one_step(tmp_path: Path) -> None:
    net = Net(4)
    x = net.neuron(net.conv(net.input((1, 5, 5), "static"), 4))
    check(net.output(net.op("readout", net.linear(net.op("flatten", x), 3), mode="mean")), tmp_path / "net")


def test_the_example_output_is_what_the_program_writes(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    _, folder = made
    program = build([folder / "main.c", *parts(folder)], tmp_path / "program")
    done = run([program, folder / "net_weights.bin", folder / "example_input.bin", tmp_path / "out"])
    assert (tmp_path / "out").read_bytes() == (folder / "example_output.bin").read_bytes()
    printed = [line.partition(":")[2].split() for line in done.stdout.splitlines()]
    wanted = interpreted(image_net(), inputs_of(image_net(), 1))
    assert [list(map(float, numbers)) for numbers in printed] == [y.flatten().tolist() for y in wanted]


@pytest.mark.parametrize(
    ("given", "message"),
    [(["net_weights.bin"], "usage:"), (["example_input.bin", "example_input.bin"], "too short")],
)
def test_the_program_says_what_is_wrong(
    made: tuple[CBundle, Path], tmp_path: Path, given: list[str], message: str
) -> None:
    _, folder = made
    program = build([folder / "main.c", *parts(folder)], tmp_path / "program")
    done = subprocess.run([program, *(folder / g for g in given)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and message in done.stderr


def test_other_weights_of_the_same_network_take_their_place(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    _, folder = made
    other = bundle(image_net(seed=1), tmp_path / "net")
    program = build([folder / "main.c", *parts(folder)], tmp_path / "program")
    found = tmp_path / "out"
    run([program, tmp_path / "net" / "net_weights.bin", folder / "example_input.bin", found])
    assert found.read_bytes() == (tmp_path / "net" / "example_output.bin").read_bytes()
    assert found.read_bytes() != (folder / "example_output.bin").read_bytes()
    assert other.network.weights_file() != (folder / "net_weights.bin").read_bytes()


def test_weights_of_another_network_are_refused(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    _, folder = made
    content = bytearray((folder / "net_weights.bin").read_bytes())
    content[8] ^= 1
    (tmp_path / "weights").write_bytes(content)
    program = build([folder / "main.c", *parts(folder)], tmp_path / "program")
    command = [program, tmp_path / "weights", folder / "example_input.bin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "not weights for this program (-2)" in done.stderr


TWO_THREADS = """
#include <pthread.h>
#include <string.h>
#include "net.h"

static net_context contexts[2];
static float inputs[2][NET_X_COUNT], outputs[2][NET_OUTPUT_COUNT], membranes[2][NET_OUTPUT_2_COUNT];

static void *work(void *number)
{
    int k = *(int *)number;
    net_reset(&contexts[k]);
    for (int i = 0; i < 200; i++)
        net_run(&contexts[k], inputs[k], outputs[k], membranes[k]);
    return NULL;
}

int main(void)
{
    float output[NET_OUTPUT_COUNT], membrane[NET_OUTPUT_2_COUNT];
    static net_context alone;
    pthread_t threads[2];
    int numbers[2] = { 0, 1 };
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < NET_X_COUNT; i++)
            inputs[k][i] = (float)((i * 7 + k * 3) % 9) / 8;
        if (net_init(&contexts[k], net_weights) || pthread_create(&threads[k], NULL, work, &numbers[k]))
            return 1;
    }
    if (net_init(&alone, net_weights) || net_init((net_context *)((char *)&alone + 4), net_weights) != -1)
        return 2;
    for (int k = 0; k < 2; k++) {
        pthread_join(threads[k], NULL);
        net_run(&alone, inputs[k], output, membrane);
        if (memcmp(output, outputs[k], sizeof output) || memcmp(membrane, membranes[k], sizeof membrane))
            return 3;
    }
    return memcmp(outputs[0], outputs[1], sizeof output) == 0;
}
"""


def test_two_contexts_in_two_threads_share_embedded_weights(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    _, folder = made
    (tmp_path / "two.c").write_text(TWO_THREADS)
    flags = (*STRICT, "-pthread", f"-Wa,-I{folder}")
    run([build([tmp_path / "two.c", *parts(folder), folder / "net_weights.S"], tmp_path / "program", flags=flags)])


ANYWHERE = """
#include <stdio.h>
#include <string.h>
#include "net.h"

static net_context context;
static unsigned char inputs[NET_X_COUNT * 4 + 64], outputs[3][(NET_OUTPUT_COUNT + NET_OUTPUT_2_COUNT) * 4 + 64];
static unsigned char saved[NET_SAVED_BYTES];

/* all numbers of a run, data as far from a multiple of 64 bytes as `shift` says, the second half behind a save */
static void steps(unsigned char *out, int shift)
{
    float *x = (float *)(inputs + shift), *y = (float *)(out + shift), *v = y + NET_OUTPUT_COUNT;
    net_reset(&context);
    for (int k = 0; k < NET_STEPS; k++) {
        if (k == NET_STEPS / 2) {
            net_save_state(&context, saved);
            net_reset(&context);
            net_load_state(&context, saved);
        }
        net_step(&context, x + k * NET_X_STEP_COUNT, y + k * NET_OUTPUT_STEP_COUNT, v + k * NET_OUTPUT_2_STEP_COUNT);
        if (k == 2)
            net_run(&context, x, (float *)(outputs[2] + shift), (float *)(outputs[2] + shift) + NET_OUTPUT_COUNT);
    }
}

int main(void)
{
    const size_t size = (NET_OUTPUT_COUNT + NET_OUTPUT_2_COUNT) * 4;
    if (net_init(&context, net_weights))
        return 1;
    for (int shift = 0; shift < 64; shift += 4) {
        for (int i = 0; i < NET_X_COUNT; i++) {
            float value = (float)(i * 5 % 9) / 8;
            memcpy(inputs + shift + 4 * i, &value, 4);
        }
        steps(outputs[shift > 0], shift);
        if (memcmp(outputs[0], outputs[shift > 0] + shift, size) || memcmp(outputs[0], outputs[2] + shift, size)) {
            fprintf(stderr, "differs at %d\\n", shift);
            return 2;
        }
    }
    return 0;
}
"""


def test_data_at_any_address_and_state_that_is_saved(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    """Runs in between leave the state of the steps alone."""
    _, folder = made
    (tmp_path / "anywhere.c").write_text(ANYWHERE)
    sources = [tmp_path / "anywhere.c", *parts(folder), folder / "net_weights.S"]
    flags = (*STRICT, *SANITIZED, "-Wno-cast-align", f"-Wa,-I{folder}")
    run([build(sources, tmp_path / "program", flags=flags)])


TWO_NETWORKS = """
#include <stdio.h>
#include "first.h"
#include "second.h"

static first_context first;
static second_context second;

int main(void)
{
    static float x[FIRST_X_COUNT], y[FIRST_OUTPUT_COUNT], v[FIRST_OUTPUT_2_COUNT];
    static float a[SECOND_X_COUNT], b[SECOND_OUTPUT_COUNT], c[SECOND_OUTPUT_2_COUNT];
    for (int i = 0; i < FIRST_X_COUNT; i++)
        x[i] = (float)(i % 9) / 8;
    for (int i = 0; i < SECOND_X_COUNT; i++)
        a[i] = (float)(i % 9) / 8;
    if (first_init(&first, first_weights) || second_init(&second, second_weights))
        return 1;
    if (first_init(&first, second_weights) != FIRST_ERROR_WEIGHTS || first_init(&first, first_weights))
        return 2;
    first_run(&first, x, y, v);
    second_run(&second, a, b, c);
    for (int i = 0; i < FIRST_OUTPUT_COUNT; i++)
        printf("%g ", y[i]);
    for (int i = 0; i < SECOND_OUTPUT_COUNT; i++)
        printf("%g ", b[i]);
    return 0;
}
"""


def test_two_networks_in_one_program(tmp_path: Path) -> None:
    graphs = {"first": image_net(), "second": recurrent_net()}
    for name, graph in graphs.items():
        bundle(graph, tmp_path / name, name)
    (tmp_path / "both.c").write_text(TWO_NETWORKS)
    sources = [p for n in graphs for p in (*parts(tmp_path / n, n), tmp_path / n / f"{n}_weights.S")]
    flags = (*STRICT, *(f"-Wa,-I{tmp_path / n}" for n in graphs))
    done = run([build([tmp_path / "both.c", *sources], tmp_path / "program", flags=flags)])
    wanted: list[float] = []
    for graph in graphs.values():
        shape = (graph.base_timesteps, 1, *graph.inputs[0].type.shape)
        x = (torch.arange(torch.Size(shape).numel()) % 9 / 8).reshape(shape)
        wanted += interpreted(graph, (x,))[0].flatten().tolist()
    assert list(map(float, done.stdout.split())) == wanted


def test_objects_need_nothing_but_libc_and_libm(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    c, folder = made
    listed = run(["nm", "--undefined-only", "--format=posix", folder / "net_kernels.o"]).stdout
    undefined = {line.split()[0] for line in listed.splitlines()}
    assert undefined == c.network.objects.file.undefined <= LIBC | LIBM
    strong = run(["nm", "--defined-only", "--extern-only", "--format=posix", folder / "net_kernels.o"]).stdout
    defined = {line.split()[0] for line in strong.splitlines() if line.split()[1] in "TDBR"}
    assert defined == c.network.objects.file.defined
    assert all(name.startswith("net_kernel_") for name in defined)


def test_the_sizes_are_those_of_the_object_file(made: tuple[CBundle, Path]) -> None:
    c, folder = made
    listed = run(["size", folder / "net_kernels.o"]).stdout.splitlines()[1].split()
    found = c.network.objects.file
    sizes = (found.bytes_of("code") + found.bytes_of("constants"), found.bytes_of("data"), found.bytes_of("zeros"))
    assert list(map(int, listed[:3])) == list(sizes)
    rows = {row["what"]: row["bytes"] for row in json.loads((folder / "report.json").read_text())["memory"]}
    assert rows["context"] == c.network.context_bytes
    assert rows["weights"] == (folder / "net_weights.bin").stat().st_size
    assert f"| context | {c.network.context_bytes} |" in (folder / "README.md").read_text()


def test_the_header_is_cplusplus_too(made: tuple[CBundle, Path], tmp_path: Path) -> None:
    _, folder = made
    source = tmp_path / "main.cpp"
    source.write_text('#include "net.h"\nstatic net_context c;\nint main() { return net_init(&c, net_weights); }\n')
    objects = tmp_path / "net.o"
    run(["cc", "-c", *STRICT, folder / "net.c", "-o", objects])
    embedded = tmp_path / "weights.o"
    run(["cc", "-c", f"-Wa,-I{folder}", folder / "net_weights.S", "-o", embedded])
    flags = ("-std=c++11", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{folder}")
    run([build([source, objects, folder / "net_kernels.o", embedded], tmp_path / "program", ("c++",), flags)])


@pytest.mark.cmake
@pytest.mark.parametrize("embed", ["OFF", "ON"])
def test_cmake_builds_it(made: tuple[CBundle, Path], tmp_path: Path, embed: str) -> None:
    _, folder = made
    run(
        ["cmake", "-S", folder, "-B", tmp_path, f"-DNET_EMBED_WEIGHTS={embed}", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror"]
    )
    run(["cmake", "--build", tmp_path])
    weights = "-" if embed == "ON" else folder / "net_weights.bin"
    run([tmp_path / "net_main", weights, folder / "example_input.bin", tmp_path / "out"])
    assert (tmp_path / "out").read_bytes() == (folder / "example_output.bin").read_bytes()


@pytest.mark.cmake
def test_the_example_classifies_as_the_interpreter_does(tmp_path: Path) -> None:
    """``examples/c_program`` around the network of the demonstration."""
    demo, example = ROOT / "ldsnn_compiler" / "demo", ROOT / "examples" / "c_program"
    c = bundle(read_graph(demo / "digits.ldir"), tmp_path / "net", "digits", schedule=demo / "schedule.json")
    run(["cmake", "-S", example, "-B", tmp_path / "build", f"-DDIGITS={tmp_path / 'net'}"])
    run(["cmake", "--build", tmp_path / "build"])
    text = (example / "images.txt").read_text()
    images = torch.tensor(list(map(float, text.split()))).reshape(-1, 1, 8, 8) / 16
    wanted = interpreted(c.graph, (images[None],))[0].argmax(-1).flatten().tolist()
    found = subprocess.run([tmp_path / "build" / "classify"], input=text, capture_output=True, text=True, check=True)
    assert list(map(int, found.stdout.split())) == wanted == [0, 1, 6, 7]


def test_the_manifest_lists_every_file(made: tuple[CBundle, Path]) -> None:
    from ldsnn_compiler.runtime.folder import read_files, read_manifest

    _, folder = made
    manifest = read_manifest(folder, "ldsnn C bundle", 1)
    assert {p.name for p in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    assert read_files(folder, manifest, tuple(manifest["files"]))["net.h"].startswith(b"/* net: a spiking")
    assert manifest["threads"] == 1 and manifest["batch"] == 1


def test_a_c_bundle_is_not_one_to_load(made: tuple[CBundle, Path]) -> None:
    with pytest.raises(BundleError, match="is a folder of the kind 'ldsnn C bundle', expected is 'ldsnn bundle'"):
        load(made[1])


def test_the_command_line_writes_one(tmp_path: Path) -> None:
    def call(*words: object) -> Result:
        return CliRunner().invoke(app, [*map(str, words)])

    write_graph(image_net(), tmp_path / "g.ldir")
    given = ("compile", tmp_path / "g.ldir", "--target", "native", "--format", "c", "-o", tmp_path / "out")
    answer = call(*given, "--name", "eyes", "--json")
    assert answer.exit_code == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["memory"] == json.loads((tmp_path / "out" / "report.json").read_text())["memory"]
    assert (tmp_path / "out" / "eyes.h").read_text().startswith("/* eyes: a spiking neural network for native")
    assert call(*given, "--threads", 2).exit_code == 2
    assert call("compile", tmp_path / "g.ldir", "--name", "eyes").exit_code == 2
    wrong = call(*given, "--name", "my eyes")
    assert wrong.exit_code == 1 and "my eyes" in wrong.stderr


def test_an_open_batch_and_a_gpu_are_refused_together() -> None:
    with pytest.raises(LdsnnError) as error:
        compile_c(image_net(), target="h100", batch=None)
    assert [str(p) for p in error.value.problems] == [
        "h100: networks in C run on a CPU, and this is a GPU",
        "a C bundle has a fixed batch: its memory is planned when it is compiled",
    ]


@pytest.mark.parametrize("name", ["2net", "a-b", "", "main", "stdio", "grün"])
def test_names_that_c_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(LdsnnError):
        network_name(name)


def test_names_are_made_from_those_of_graphs() -> None:
    assert [made_name(n) for n in ("digits", "my.net", "2net", "main")] == ["digits", "my_net", "net_2net", "net_main"]
    found = parameters(["x", "X", "int", "layer1.0", "1", "context"])
    assert found == {"x": "x", "X": "X_2", "int": "int_2", "layer1.0": "layer1_0", "1": "x1", "context": "context_2"}

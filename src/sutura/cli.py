"""The command line: parses, calls one function, prints. No logic lives here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sutura.cli_data import data
from sutura.cli_jepa import jepa
from sutura.cli_judge import add_judging
from sutura.core.errors import UserError
from sutura.core.processes import leave, share_out
from sutura.core.secrets import command_line as _command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which frozen vision encoder gives a language model the best eyes, and how sure are we?",
)
zoo = typer.Typer(no_args_is_help=True, help="The small weights this project trained itself.")
app.add_typer(zoo, name="zoo")
app.add_typer(jepa, name="jepa")
app.add_typer(data, name="data")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="Change the preset.")
]
Preset = Annotated[str, typer.Option(help="A shipped preset's name, or a YAML file.")]
FromHub = Annotated[
    str | None, typer.Option("--from-hub", metavar="REPO", help="A Hub repository, org/name.")
]
Stitches = Annotated[
    list[Path] | None,
    typer.Option("--stitch", help="A stitch's directory, or a folder of stitches; several times."),
]

OneEncoder = Annotated[
    str | None, typer.Option("--encoder", help="Of the stitches found, this encoder's alone.")
]
Picture = Annotated[str | None, typer.Option(help="The picture: a file or an http(s) URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object an answer.")]
Device = Annotated[str, typer.Option(help="Where to run.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="An answer is cut there at the latest.")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token, above 0 draws.")]
TopP = Annotated[float | None, typer.Option(help="Draw among the likeliest that have this share.")]
TopK = Annotated[int | None, typer.Option(help="Draw among so many of the likeliest.")]
Seed = Annotated[int | None, typer.Option(help="Of the draws.")]


@app.command()
def compare(
    overrides: Overrides = None,
    preset: Preset = "world",
    limit: Annotated[int | None, typer.Option(help="At most so many pictures of every data set.")] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Show the resolved config and the cells, run nothing.")
    ] = False,
    no_feature_cache: Annotated[bool, typer.Option(help="Run the encoders live in every step.")] = False,
    from_hub: FromHub = None,
) -> None:
    """Train and evaluate every encoder under one protocol, and write a report."""
    print(f"sutura compare: preset {preset}", file=sys.stderr, flush=True)
    from sutura.compare.settings import dry, settings

    config = settings(preset, overrides or (), limit=limit, cache=not no_feature_cache)
    if dry_run:
        typer.echo(dry(config))
        return
    from sutura.hub.run import run

    typer.echo(run(config, command=_command(), from_hub=from_hub))


@app.command()
def plan(
    overrides: Overrides = None,
    preset: Preset = "world",
    gpu: Annotated[
        str | None, typer.Option(help="Does it fit, and what would? h200, a100, rtx4090, …")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every number, as JSON.")] = False,
) -> None:
    """What a run needs, before anything is downloaded: parameters, memory, disk, hours."""
    print(f"sutura plan: preset {preset}", file=sys.stderr, flush=True)
    from sutura.compare.plan_text import planned

    typer.echo(planned(preset, overrides or (), gpu=gpu, as_json=as_json))


@app.command()
def stitch(
    encoder: Annotated[str, typer.Option(help="The encoder's id, or a row's name in the preset.")],
    overrides: Overrides = None,
    preset: Preset = "world",
    seed: Annotated[int, typer.Option(help="Of adapter, projector, order and dropout.")] = 0,
    limit: Annotated[int | None, typer.Option(help="At most so many pictures of every data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="Copy the finished stitch there.")] = None,
) -> None:
    """Train one encoder's stitch and print where it lies."""
    print(f"sutura stitch: {encoder}, preset {preset}", file=sys.stderr, flush=True)
    from sutura.compare.settings import settings

    config = settings(preset, overrides or (), limit=limit)
    from sutura.hub.run import run_one

    typer.echo(run_one(config, encoder, seed=seed, out=out, command=_command()))


@app.command(name="eval")
def evaluate(
    benchmark: Annotated[str, typer.Option(help="A benchmark's name, or local:NAME with data overrides.")],
    stitch: Stitches = None,
    from_hub: FromHub = None,
    encoder: OneEncoder = None,
    max_samples: Annotated[int | None, typer.Option(help="At most so many questions.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Of the benchmark's data.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the ledger (Parquet) there.")] = None,
    allow_training: Annotated[bool, typer.Option(help="Accept a training split; that is no test.")] = False,
) -> None:
    """Score saved stitches on a benchmark, beside the same stitches shown wrong pictures."""
    from sutura.compare.single import evaluate_saved
    from sutura.hub.pull import given

    typer.echo(
        evaluate_saved(
            given(stitch, from_hub, encoder),
            benchmark,
            overrides or (),
            out=out,
            allow_training=allow_training,
            max_samples=max_samples,
        )
    )


@app.command()
def ask(
    stitch: Stitches = None,
    question: Annotated[str | None, typer.Argument(help="What to ask.")] = None,
    from_hub: FromHub = None,
    encoder: OneEncoder = None,
    image: Picture = None,
    interactive: Annotated[
        bool, typer.Option(help="Go on asking; :image PATH, :reset and :quit are understood.")
    ] = False,
    history: Annotated[
        bool,
        typer.Option(
            help="A question sees the earlier ones and their answers. Stitches are trained on questions that "
            "do not see each other (turns: shared), so without it each is asked alone."
        ),
    ] = False,
    batch: Annotated[Path | None, typer.Option(help="A CSV with columns image and question.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of its pictures.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where its answers go (CSV).")] = None,
    as_json: AsJson = False,
    device: Device = "auto",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
) -> None:
    """Ask trained stitches about a picture, or about a folder of them."""
    from sutura.compare.asking import Options
    from sutura.compare.asking import ask as put
    from sutura.hub.pull import given

    sampling = (temperature, top_p, top_k, seed)
    options = Options(interactive, history, as_json, device, max_new_tokens, *sampling)
    put(given(stitch, from_hub, encoder), question, image, options, batch=batch, images=images, out=out)


@app.command()
def describe(
    stitch: Stitches = None,
    from_hub: FromHub = None,
    encoder: OneEncoder = None,
    image: Picture = None,
    as_json: AsJson = False,
    device: Device = "auto",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
) -> None:
    """A picture in trained stitches' words: no question is needed."""
    from sutura.compare.asking import Options
    from sutura.compare.asking import describe as put
    from sutura.hub.pull import given

    options = Options(False, False, as_json, device, max_new_tokens, temperature, top_p, top_k, seed)
    put(given(stitch, from_hub, encoder), image, options)


@app.command()
def pretrain(
    objective: Annotated[
        str, typer.Option(help="supervised, clip, siglip, mae, eva, ijepa, or a plug-in's.")
    ],
    overrides: Overrides = None,
    data: Annotated[
        str, typer.Option(help="`world`, a Parquet file, a folder, JSON lines, tar shards, or a Hub set.")
    ] = "world",
    preset: Preset = "pretrain/tiny",
) -> None:
    """Train an encoder from nothing on pictures, and print where it lies."""
    print(f"sutura pretrain: {objective} on {data}, preset {preset}", file=sys.stderr, flush=True)
    from sutura.train.pretrain_config import pretrain_settings

    config = pretrain_settings(objective, data, preset, overrides or ())
    from sutura.train.pretrain import pretrain_shown

    typer.echo(pretrain_shown(config, command=_command()))


@app.command()
def probe(
    encoder: Annotated[list[str], typer.Option(help="An encoder's id; may be given several times.")],
    overrides: Overrides = None,
    data: Annotated[
        str, typer.Option(help="`world`, a file, a folder, tar shards, or a Hub set with labels.")
    ] = "world",
    kind: Annotated[
        str | None, typer.Option(help="Of linear, knn, attentive, fewshot, zeroshot, with commas.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the figures there (JSON), and beside it every score.")
    ] = None,
) -> None:
    """Read labels off frozen features, beside what knowing nothing would score."""
    print(f"sutura probe: {', '.join(encoder)} on {data}", file=sys.stderr, flush=True)
    from sutura.evals.probe import probe as put

    result = put(encoder, data, kind, overrides or (), out=out)
    typer.echo(result.markdown())


@app.command()
def push(
    path: Annotated[Path, typer.Argument(help="A stitch's directory, or runs/<name>.")],
    repo: Annotated[str | None, typer.Option(help="org/name; HF_REPO_ID by default.")] = None,
    public: Annotated[bool, typer.Option("--public", help="For everybody to see.")] = False,
    thumbnails: Annotated[
        bool, typer.Option(help="Also send 32 × 32 thumbnails of the training pictures.")
    ] = False,
) -> None:
    """Send a stitch or a whole comparison to the Hub, with a card."""
    from sutura.hub.push import push as send

    typer.echo(send(path, repo, private=not public, thumbnails=thumbnails))


@app.command()
def pull(
    repo: Annotated[str, typer.Argument(help="org/name on the Hub.")],
    out: Annotated[Path, typer.Option(help="Where to.")] = Path("runs"),
    encoder: Annotated[str | None, typer.Option(help="This encoder's stitches alone.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Fetch stitches, or a whole comparison, from the Hub."""
    from sutura.hub.pull import pull as get

    for path in get(repo, out, encoder=encoder, revision=revision):
        typer.echo(path)


@app.command()
def export(
    stitch: Annotated[Path, typer.Argument(help="A stitch's directory.")],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    layout: Annotated[str, typer.Option(help="llava, or peft: a plain adapter beside a projector.")] = "peft",
) -> None:
    """Write a stitch in another program's layout."""
    from sutura.hub.export import export as write

    typer.echo(write(stitch, out, layout))


@app.command()
def doctor() -> None:
    """Versions, threads, accelerators and cache places of this installation."""
    from sutura.core.doctor import findings
    from sutura.core.tables import show

    show(findings(), title="sutura doctor")


@zoo.command(name="list")
def zoo_list() -> None:
    """What the zoo holds."""
    from sutura.core.tables import show
    from sutura.train.zoo import zoo_table

    show(zoo_table(), title="Zoo")


@zoo.command()
def build(
    name: Annotated[str, typer.Argument(help="A member of the zoo, or `all`.")],
    overrides: Overrides = None,
) -> None:
    """Train a member of the zoo again from nothing."""
    from sutura.train.zoo import build_member

    for path in build_member(name, overrides or ()):
        typer.echo(path)


add_judging(app)


def main() -> None:
    """Entry point. A UserError is printed as a sentence, and the exit code is 2."""
    from sutura.core.secrets import hide, read_env

    code: int | None = None
    try:
        share_out(sys.argv[1:])
        read_env()
        app()
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except UserError as error:
        print(f"sutura: {hide(str(error))}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(
            "sutura: interrupted; what is finished is kept, run the same command to go on.", file=sys.stderr
        )
        code = 130
    finally:
        leave(code)
    raise SystemExit(code)


if __name__ == "__main__":
    main()

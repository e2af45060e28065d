"""The grammar of the commands that make something out of an image: a copy, a container, a page."""

from fusefs.cli.parsing.look_commands import add_layer, add_look
from fusefs.cli.parsing.parser import Commands


def add_uses(commands: Commands) -> None:
    """Add these commands."""
    _add_cp(commands)
    _add_shell(commands)
    _add_report(commands)


def _add_cp(commands: Commands) -> None:
    parser = add_look(
        commands,
        "cp",
        "copy files of an image",
        "Copy a file or directory of an image's root file system with its attributes, as cp -a does. If DEST is a "
        "directory, the copy is made in it; of IMAGE:/DIR/. only what is in DIR. - writes a tar to standard output.",
        ("imgfs cp nginx:latest:/etc/nginx ./conf", "imgfs cp ./app.tar:/opt/. - | tar -tv"),
        last_operand="paths",
    )
    parser.add_argument("image", metavar="IMAGE[:/PATH]")
    parser.add_argument("paths", metavar="[PATH…] DEST", nargs="+")
    parser.add_argument("-L", "--follow-link", action="store_true", help="follow a symbolic link that PATH itself is")
    add_layer(parser)
    parser.add_help_last()


def _add_shell(commands: Commands) -> None:
    parser = add_look(
        commands,
        "shell",
        "run a shell or a command in an image",
        "Run a shell, or COMMAND, in a throwaway container over IMAGE: what it changes is gone at the end. "
        "This runs programs of the image, with the network of this machine; it is no sandbox for hostile ones.",
        ("imgfs shell nginx:latest", "imgfs shell --keep changes ./app.tar -- sh -c 'apk add curl'"),
        json=False,
        last_operand="words",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("words", metavar="-- COMMAND", nargs="*")
    parser.add_argument("--keep", metavar="DIR", help="keep what changes in DIR, as overlayfs writes it")
    parser.add_argument("--tools", action="store_true", help="add the host's static busybox to the PATH, in /dev/imgfs")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="user (default: that of the image)")
    parser.add_help_last()


def _add_report(commands: Commands) -> None:
    parser = add_look(
        commands,
        "report",
        "write a page about an image, or about what differs between two",
        "Write one HTML page that needs no network: layers, sizes by directory, the largest files and waste of IMAGE; "
        "with a second image, also what differs.",
        ("imgfs report nginx:latest -o report.html", "imgfs report nginx:1.26 nginx:1.27 -o report.html"),
        last_operand="other",
    )
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("other", metavar="IMAGE", nargs="?")
    parser.add_argument("-o", "--output", metavar="FILE", help="file for the page; - is standard output")
    parser.add_help_last()

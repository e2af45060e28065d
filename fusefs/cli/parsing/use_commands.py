"""The grammar of the commands that make something out of an image: a copy, a container, a page."""

from fusefs.cli.parsing.look_commands import add_layer, add_look
from fusefs.cli.parsing.parser import Commands


def add_uses(commands: Commands) -> None:
    """Add these commands."""
    _add_cp(commands)


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

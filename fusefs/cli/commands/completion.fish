# fish completion for imgfs: imgfs completion fish | source
#
# imgfs itself says what a word may become (imgfs __complete); here is only what is fish's own.

function __imgfs_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l word (commandline -ct)
    set -l answer (command imgfs __complete $words "$word" 2>/dev/null)
    test (count $answer) -ge 2; or return
    set -l paths $answer[1]
    set -l prefix $answer[2]
    set -e answer[1..2]
    for line in $answer
        printf '%s\n' "$prefix$line"
    end
    test $paths = nothing; and return
    # fish completes paths of the command '' as of any other; a quote that is open is not its prefix's.
    set -l quoted (string match -qr '^["\']' -- "$word"; and echo yes)
    set -l path (string replace -r '^["\']' '' -- "$word" | string sub -s (math (string length -- "$prefix") + 1))
    test -n "$quoted"; and set path (string escape -- "$path")
    for line in (complete -C "'' $path")
        if test $paths = files; or string match -q '*/' -- $line
            printf '%s\n' "$prefix$line"
        end
    end
end

complete -c imgfs -f -a '(__imgfs_complete)'

# bash completion for imgfs: source <(imgfs completion bash)
#
# imgfs itself says what a word may become (imgfs __complete); here is only what is bash's own: where words end, and
# how they are quoted.  Nothing that was typed or answered is evaluated.

_imgfs() {
    local words=() rest=${COMP_LINE:0:COMP_POINT} trimmed piece i
    # bash ends words also at : = and @.  What no blank separates is one word.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        trimmed=${rest#"${rest%%[![:blank:]]*}"}
        piece=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && piece=$trimmed
        if ((i == 0)) || [[ $trimmed != "$rest" ]]; then
            words+=("$piece")
        else
            words[${#words[@]} - 1]+=$piece
        fi
        rest=${trimmed#"$piece"}
    done
    # Of the last word, readline replaces only what follows the last of these ends.
    local word=${words[${#words[@]} - 1]} own=$piece
    [[ $own && $COMP_WORDBREAKS == *"${own:0:1}"* && $own != [\"\']* ]] && own=''
    local kept=${word%"$own"}

    local answer=()
    mapfile -t answer < <(command imgfs __complete "${words[@]:1}" 2>/dev/null)
    local paths=${answer[0]-} prefix=${answer[1]-} candidates=("${answer[@]:2}")
    candidates=("${candidates[@]%%$'\t'*}")
    COMPREPLY=()
    case $paths in
        files | folders)
            if [[ $kept == "$prefix" ]]; then
                # Readline's own completion of file names does it all.
                if [[ $paths == files ]]; then compopt -o default; else compopt -o dirnames; fi
                return
            fi
            # Not where a quote is open, or who set COMP_WORDBREAKS took the colon out.
            local path=${word#[\"\']} found=() name
            path=${path#"$prefix"}
            mapfile -t found < <(compgen "$([[ $paths == files ]] && echo -f || echo -d)" -- "$path")
            for name in "${found[@]}"; do
                [[ -d ${name/#\~\//~/} ]] && name+=/
                candidates+=("$name")
            done
            ;;
    esac

    local quote='' candidate
    [[ $own == [\"\']* ]] && quote=${own:0:1}
    for candidate in "${candidates[@]}"; do
        candidate=$prefix$candidate
        if [[ $quote ]]; then
            [[ $candidate == *[\"\'\\\$\`!]* ]] && continue
        elif [[ $candidate == *[!A-Za-z0-9_./:=,@+%-]* ]]; then
            printf -v candidate %q "$candidate"
        fi
        [[ $candidate == "$kept"* ]] && COMPREPLY+=("${candidate#"$kept"}")
    done
    # More is to come after these.
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:=/,] ]] && compopt -o nospace
    return 0
}

complete -F _imgfs imgfs

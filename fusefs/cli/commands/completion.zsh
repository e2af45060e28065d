#compdef imgfs
# zsh completion for imgfs: source <(imgfs completion zsh), or as _imgfs in a folder of $fpath
#
# imgfs itself says what a word may become (imgfs __complete); here is only what is zsh's own.

_imgfs() {
    local -a answer bare bare_open told told_open
    local line word meaning result=1
    answer=("${(@f)$(command imgfs __complete "${(@)words[2,CURRENT-1]}" "$IPREFIX$PREFIX" 2>/dev/null)}")
    local paths=$answer[1] prefix=$answer[2]
    if [[ -n $prefix ]]; then
        [[ $PREFIX == "$prefix"* ]] || return 1
        compset -p ${#prefix}
    fi
    for line in "${(@)answer[3,-1]}"; do
        word=${line%%$'\t'*} meaning=${line#*$'\t'}
        [[ -n $word ]] || continue
        if [[ -z $meaning ]]; then
            if [[ $word == *[:=/,] ]]; then bare_open+=("$word"); else bare+=("$word"); fi
        elif [[ $word == *[:=/,] ]]; then
            told_open+=("${word//:/\\:}:$meaning")
        else
            told+=("${word//:/\\:}:$meaning")
        fi
    done
    (( $#told )) && _describe -t candidates imgfs told && result=0
    (( $#told_open )) && _describe -t sources imgfs told_open -S '' && result=0
    (( $#bare )) && compadd -a bare && result=0
    (( $#bare_open )) && compadd -S '' -a bare_open && result=0
    case $paths in
        files) _files && result=0 ;;
        folders) _path_files -/ && result=0 ;;
    esac
    return result
}

# In a folder of $fpath this file is the function, at its first call.
if [[ ${funcstack[1]-} == _imgfs ]]; then
    _imgfs "$@"
else
    compdef _imgfs imgfs
fi

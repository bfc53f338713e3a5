#!/bin/sh
# Collects about 15 MB of English from Debian packages (bible-kjv + bible-kjv-text, jargon-text, wordnet-base) as text
# files, each document followed by a line "<|endoftext|>", as `trainyard data tokenize --input DIR` expects it.
# usage: corpus.sh DIR. What is not installed is left out, with a word; it fails only if nothing is there.
set -eu

if [ $# -ne 1 ]; then
  echo "usage: corpus.sh DIR" >&2
  exit 2
fi
out=$1
mkdir -p "$out"
found=0

# report NAME FILE: how far we are, for people
report() {
  found=$((found + 1))
  echo "corpus: $1: $(wc -c <"$2" | awk '{printf "%.1f MB", $1 / 1e6}'), $(grep -c '<|endoftext|>' "$2" || true) documents" >&2
}

# A chapter is a document. `bible -f` prints "Gen1:1 In the beginning ..."; the reference goes, the verse stays.
if command -v bible >/dev/null 2>&1; then
  echo "corpus: reading the King James Bible ..." >&2
  bible -f gen1:1-rev22:21 | awk '
    {
      reference = $1
      sub(/^[^ ]+ +/, "")
      chapter = reference
      sub(/:[0-9]+$/, "", chapter)
      if (chapter != last && NR > 1) print "<|endoftext|>"
      last = chapter
      print
    }
    END { print "<|endoftext|>" }' >"$out/.bible.tmp"
  mv "$out/.bible.tmp" "$out/bible.txt"
  report "King James Bible" "$out/bible.txt"
else
  echo "corpus: no Bible (apt-get install bible-kjv bible-kjv-text)" >&2
fi

# An entry of the Jargon File begins with ":name:" at the start of a line.
jargon=$(ls /usr/share/doc/jargon-text/jargon.txt.gz /usr/share/doc/jargon-text/jargon.txt 2>/dev/null | head -n 1)
if [ -n "$jargon" ]; then
  echo "corpus: reading the Jargon File ..." >&2
  case $jargon in *.gz) zcat "$jargon" ;; *) cat "$jargon" ;; esac | tr -d '\f\r' | awk '
    /^ *:[^ :][^:]*:( |$)/ && NR > 1 { print "<|endoftext|>" }
    { print }
    END { print "<|endoftext|>" }' >"$out/.jargon.tmp"
  mv "$out/.jargon.tmp" "$out/jargon.txt"
  report "Jargon File" "$out/jargon.txt"
else
  echo "corpus: no Jargon File (apt-get install jargon-text)" >&2
fi

# A line of WordNet is "offset ... n words ... | gloss": "word, word: gloss". 50 to a document.
wordnet=/usr/share/wordnet
if [ -r "$wordnet/data.noun" ]; then
  echo "corpus: reading WordNet ..." >&2
  for part in noun verb adj adv; do
    [ -r "$wordnet/data.$part" ] && cat "$wordnet/data.$part"
  done | awk '
    /^[0-9]/ {
      bar = index($0, "|")
      if (bar == 0) next
      gloss = substr($0, bar + 2)
      sub(/ +$/, "", gloss)
      # Field 4 counts the words in hexadecimal; there are at most a few dozen.
      digits = "0123456789abcdef"
      count = 16 * (index(digits, substr($4, 1, 1)) - 1) + index(digits, substr($4, 2, 1)) - 1
      words = ""
      for (i = 0; i < count; ++i) {
        word = $(5 + 2 * i)
        sub(/\([a-z]+\)$/, "", word)
        gsub(/_/, " ", word)
        words = words (i ? ", " : "") word
      }
      print words ": " gloss "."
      if (++n % 50 == 0) print "<|endoftext|>"
    }
    END { print "<|endoftext|>" }' >"$out/.wordnet.tmp"
  mv "$out/.wordnet.tmp" "$out/wordnet.txt"
  report "WordNet" "$out/wordnet.txt"
else
  echo "corpus: no WordNet (apt-get install wordnet-base)" >&2
fi

if [ $found -eq 0 ]; then
  echo "corpus: none of the packages is installed, so there is no text" >&2
  exit 1
fi
echo "corpus: done, in $out" >&2

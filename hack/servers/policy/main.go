// Prints what Go's own library, which Flux's image policies are made of, says about numbers, orders and templates, as the
// table that the tests of controller/src/policy compare with:
// go run . > ../../../controller/src/policy/testdata/go.txt
// The table depends on nothing but this file and the version of Go.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"sort"
	"strconv"
)

func main() {
	random := rand.New(rand.NewPCG(6, 3))
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintln(out, "# Made by hack/servers/policy. n: bits of the finite number (- none), text.")
	fmt.Fprintln(out, "# s: texts as sort.Strings leaves them. x: pattern, template, text, what it expands to (null: no match).")
	for _, text := range numbers(random) {
		value, err := strconv.ParseFloat(text, 64)
		verdict := "-"
		if err == nil && !math.IsInf(value, 0) && !math.IsNaN(value) {
			verdict = strconv.FormatUint(math.Float64bits(value), 16)
		}
		fmt.Fprintf(out, "n %s %s\n", verdict, quote(text))
	}
	for range 20 {
		texts := make([]string, 12)
		for i := range texts {
			texts[i] = pick(random, "abAB09._-", 1+random.IntN(4))
		}
		sort.Strings(texts)
		fmt.Fprintf(out, "s %s\n", quote(texts))
	}
	for _, pattern := range patterns {
		for _, template := range templates(random) {
			for _, text := range tags {
				fmt.Fprintf(out, "x %s\n", quote([]any{pattern, template, text, expanded(pattern, template, text)}))
			}
		}
	}
}

var patterns = []string{``, `^v`, `v(\d+)\.(\d+)`, `^(?P<branch>[a-z]+)-(?P<ts>[0-9]+)$`, `(a)|(b)`, `(?P<x_1>[a-z]*)`, `([0-9]*)$`}

var tags = []string{"", "v1.2.3", "main-1606234201", "b-7", "a", "latest"}

func templates(random *rand.Rand) []string {
	texts := []string{"", "$0", "$1", "${1}", "$2.$1", "$1x", "${1}x", "$ts", "${ts}", "$branch-$ts", "$none", "$$1", "$", "$$", "${",
		"${}", "${1", "${ts-1}", "$01", "${01}", "$x_1", "a$", "$ 1", "$-1", "x${branch}y$z", "$10", "$1_", "${ts}$"}
	for range 30 {
		texts = append(texts, pick(random, "$${}}012tsx_ .", 1+random.IntN(8)))
	}
	return texts
}

func expanded(pattern, template, text string) *string {
	compiled := regexp.MustCompile(pattern)
	match := compiled.FindStringSubmatchIndex(text)
	if match == nil {
		return nil
	}
	result := text
	if template != "" {
		result = string(compiled.ExpandString(nil, template, text, match))
	}
	return &result
}

func numbers(random *rand.Rand) []string {
	texts := []string{"", "0", "-0", "+1", "1.", ".5", ".", "-", "1e5", "1E-5", "1e", "1e+5", "1e400", "-1e400", "1e-400", "inf",
		"-Inf", "infinity", "nan", "NaN", "1_000", "_1", "1_", "1__0", "1_.5", "1._5", "1_0.5_0", "1e_5", "1e1_0", "2024_01_15",
		"20240115", "2024-01-15", "1.2.3", "v1", "1a", "0.1", "9007199254740993", "1797693134862315708e290", "5e-324", "2e-324",
		"0123", "00", "1606234201", "+", "+-1", " 1", "1 ", "0b1", "0o7", "1f", "1d", "e5", ".e5", "1.e5", "١"}
	for range 150 {
		texts = append(texts, pick(random, "0123456789.e-+_", 1+random.IntN(9)))
	}
	return texts
}

func pick(random *rand.Rand, alphabet string, length int) string {
	text := make([]byte, length)
	for i := range text {
		text[i] = alphabet[random.IntN(len(alphabet))]
	}
	return string(text)
}

func quote(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Prints what Masterminds/semver says about versions and constraints, as the table that the tests of
// controller/src/semver compare with: go run . > ../../../controller/src/semver/testdata/masterminds.txt
// The table depends on nothing but this file and the version of the library in go.mod.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

const (
	randomVersions    = 60
	randomConstraints = 900
)

func main() {
	random := rand.New(rand.NewPCG(5, 8))
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintln(out, "# Made by hack/servers/semver. v: rank by precedence (- no version), text.")
	fmt.Fprintln(out, "# c: admitted versions in the order above, 1 or 0 (- no constraint), text.")
	versions := printVersions(out, versionTexts(random))
	for _, text := range constraintTexts(random) {
		constraint, err := semver.NewConstraint(text)
		if err != nil {
			fmt.Fprintf(out, "c - %s\n", quote(text))
			continue
		}
		var admitted strings.Builder
		for _, version := range versions {
			if constraint.Check(version) {
				admitted.WriteByte('1')
			} else {
				admitted.WriteByte('0')
			}
		}
		fmt.Fprintf(out, "c %s %s\n", admitted.String(), quote(text))
	}
}

// parse reads a tag as Flux does: at least three parts between dots.
func parse(text string) *semver.Version {
	if strings.Count(text, ".") < 2 {
		return nil
	}
	version, err := semver.NewVersion(text)
	if err != nil {
		return nil
	}
	return version
}

func printVersions(out *bufio.Writer, texts []string) []*semver.Version {
	var versions []*semver.Version
	for _, text := range texts {
		if version := parse(text); version != nil {
			versions = append(versions, version)
		}
	}
	sorted := slices.Clone(versions)
	slices.SortFunc(sorted, func(a, b *semver.Version) int { return a.Compare(b) })
	sorted = slices.CompactFunc(sorted, func(a, b *semver.Version) bool { return a.Equal(b) })
	for _, text := range texts {
		version := parse(text)
		if version == nil {
			fmt.Fprintf(out, "v - %s\n", quote(text))
			continue
		}
		rank := slices.IndexFunc(sorted, version.Equal)
		fmt.Fprintf(out, "v %d %s\n", rank, quote(text))
	}
	return versions
}

func quote(text string) string {
	var quoted strings.Builder
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(quoted.String(), "\n")
}

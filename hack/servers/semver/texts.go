package main

import (
	"math/rand/v2"
	"strings"
)

// By hand: what the random ones below would hardly hit.
var versionsByHand = []string{
	"0.0.0", "0.0.1", "0.0.2", "0.1.0", "0.2.3", "1.0.0", "1.2.3", "v1.2.3", "1.2.4", "1.10.0", "2.0.0", "2.1.0", "3.0.0",
	"01.002.0003", "v01.2.3", "2025.02.03", "1.2.3+a", "1.2.3+b.1", "1.2.3-alpha", "1.2.3-alpha.1", "1.2.3-alpha.beta",
	"1.2.3-beta", "1.2.3-beta.2", "1.2.3-beta.11", "1.2.3-rc.1", "1.2.3-rc.1+meta", "1.2.3-1", "1.2.3-0", "1.2.3--", "1.2.3-a-b",
	"1.2.3-99999999999999999999", "1.2.3-18446744073709551615", "1.2.3-18446744073709551614.x", "18446744073709551615.0.0",
	"18446744073709551616.0.0", "0.0.0-0", "0.0.0-alpha", "1.2-rc.1", "1.2", "1", "v1", "1.2.3.4", "1.2.3-", "1.2.3-01",
	"1.2.3-0a", "1.2.3-a..b", "1.2.3+", "1.2.3+a+b", "1.2.3+01", "V1.2.3", "vv1.2.3", "1.2.x", "1.2.*", "-1.2.3", " 1.2.3",
	"1.2.3 ", "", "..", "1..2", "a.b.c", "latest", "sha256-0123.sig", "1.2.3_build", "1.2.3-rc.1.", "1.2.3\n", "１.2.3",
}

var constraintsByHand = []string{
	"", " ", "*", "x", "X", "v*", "xx", ">=0", "> 1.2 < 2", ">1.2,<2", "> 1.2, < 2", ">1.2 ,<2", ">1.2 , <2", ">1.2,,<2",
	">1.2,", ",>1.2", "1.2", "=1.2", "= 1.2", "1.2.3", "=1.2.3", "= 1.2.3+zzz", "v1.2.3", "=v1.2.3", "1.2.x", "1.X.3", "1.*",
	"*.2.3", "x.x.x", "1.x.x", "!=1.2.3", "!=1.2", "!=1", "!=*", "!=1.2.3-beta", "!=1.2-beta", "!= x-beta", ">1.2.3", ">1.2", ">1",
	">*", ">=1.2", ">=*", "=>1.2", "<1.2", "<*", "<=1.2", "<=1", "<=*", "=<1.2.3", "= <1.2.3", "> =1.2.3", "~1", "~1.2", "~1.2.3",
	"~>1.2.3", "~> 1.2", "~*", "~0", "~0.0", "~0.0.0", "~0.0.0-alpha", "~1.2.3-beta.2", "~1.2-beta", "^1", "^1.2", "^1.2.3", "^0",
	"^0.0", "^0.0.1", "^0.1", "^0.2.3", "^*", "^0.0.0", "^1.2.3-beta.2", "^ 1.2.3", "1.2 - 2", "1.2.3 - 2.1", "1.2.3-beta - 1.2.3",
	"1.2  -  2", "1.2 -2", "1.2- 2", "1.2-2", "1 - 2 - 3", "1 - 2 3", "1 - 2, 3", "1 - 2,<2", "1 - 2>1", "1 - 2v1", ">0 1 - 2",
	">0, 1 - 2", ">0,1 - 2", "<=2 1 - 3", "1 - 2 1.2 - 2.1", ">1 - 2", "1 - 2 || 3", "1 - 2||3", "1||2 - 3", "1 || 2 - 3", "1|| 2 - 3",
	"1 ||2 - 3", "1.2.3-beta||2 - 3", "||", "1||", "||1", "1 || ", "1|2", "1|", "x.|", "1.x.3|", "1.2.3|", "1 || || 2", "1.2.3 || 2.0.0",
	">=1 <2 || >=2.1", ">=1.0.0-0 <2", ">=1.0.0-0 || <1", ">=1.2.3-alpha <1.2.3", "*-0", ">=0.0.0-0", "1.2.3-01", "1.2-01",
	">=18446744073709551615", ">=18446744073709551616", "1.18446744073709551616.x", "1.x.18446744073709551616", "==1.2.3", "!1.2.3",
	">>1", "<>1", "><1", "^^1", "~^1", "~ >1", "a", "latest", "1.2.3.4", "1.2.3 a", "1.2.3+", "1.2.3-", "1.2.3+a b", ">1.2.3+a.b-c",
	"1.2+b", "1+b", "\t>\t1.2\n<\r2\f", ">\v1", ">\u00a01", "１.2", "1.2.3-ä", "1.2.3\x00", ">=v1.2", "vv1", "01.02", ">=01.2.03", "^01",
	strings.Repeat("9", 255) + ".x", "1.2.3-" + strings.Repeat("a", 250), "1.2.3-" + strings.Repeat("a", 251),
	"1.2-" + strings.Repeat("a", 250), "1.2-" + strings.Repeat("a", 251), "1.2.3" + strings.Repeat(" ", 507), "1.2.3" + strings.Repeat(" ", 508),
	strings.Repeat("1||", 31) + "2", strings.Repeat("1||", 32) + "2",
}

const noise = " ,|<>=!~^v*xX0123.-+ab"

func pick(random *rand.Rand, of ...string) string {
	return of[random.IntN(len(of))]
}

func number(random *rand.Rand) string {
	return pick(random, "0", "0", "1", "1", "2", "3", "10", "02")
}

func prerelease(random *rand.Rand) string {
	return "-" + pick(random, "0", "1", "10", "a", "alpha", "beta", "rc.1", "rc.2", "rc.10", "rc", "alpha.1", "x-y", "1a")
}

func versionTexts(random *rand.Rand) []string {
	texts := versionsByHand
	for range randomVersions {
		text := pick(random, "", "", "v") + number(random) + "." + number(random) + "." + number(random)
		if random.IntN(3) == 0 {
			text += prerelease(random)
		}
		if random.IntN(8) == 0 {
			text += "+" + pick(random, "a", "b", "1.2")
		}
		texts = append(texts, text)
	}
	return texts
}

func constraintTexts(random *rand.Rand) []string {
	texts := constraintsByHand
	for i := range randomConstraints {
		groups := make([]string, 1+random.IntN(5)/3+random.IntN(5)/4)
		for j := range groups {
			groups[j] = group(random)
		}
		text := strings.Join(groups, pick(random, "||", " || ", " || ", "|| "))
		if i%4 == 3 {
			text = damaged(random, text)
		}
		texts = append(texts, text)
	}
	return texts
}

func group(random *rand.Rand) string {
	var text strings.Builder
	for i := range 1 + random.IntN(5)/3 + random.IntN(6)/5 {
		if i > 0 {
			text.WriteString(pick(random, " ", ", ", ",", " , "))
		}
		if random.IntN(6) == 0 {
			text.WriteString(operand(random) + pick(random, " - ", " - ", " - ", "  -  ", "- ", "-") + operand(random))
			continue
		}
		text.WriteString(pick(random, "", "", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^", "^"))
		text.WriteString(pick(random, "", "", "", " ") + operand(random))
	}
	return text.String()
}

func operand(random *rand.Rand) string {
	text := pick(random, "", "", "", "v")
	for i := range 1 + random.IntN(3) + random.IntN(12)/11 {
		if i > 0 {
			text += "."
		}
		if random.IntN(7) == 0 {
			text += pick(random, "x", "X", "*")
		} else {
			text += number(random)
		}
	}
	if random.IntN(5) == 0 {
		text += prerelease(random)
	}
	if random.IntN(12) == 0 {
		text += "+b"
	}
	return text
}

// damaged inserts, removes or replaces a character or two.
func damaged(random *rand.Rand, text string) string {
	for range 1 + random.IntN(2) {
		at := random.IntN(len(text) + 1)
		insert := string(noise[random.IntN(len(noise))])
		switch {
		case at == len(text) || random.IntN(3) == 0:
			text = text[:at] + insert + text[at:]
		case random.IntN(2) == 0:
			text = text[:at] + text[at+1:]
		default:
			text = text[:at] + insert + text[at+1:]
		}
	}
	return text
}

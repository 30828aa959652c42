package accesslog

import "bytes"

// prefixes are how keys begin, and how many letters they have at least. Those of many more providers begin with sk-.
var prefixes = []struct {
	prefix string
	least  int
}{
	{"sk-", 16}, {"sk_live_", 16}, {"sk_test_", 16}, {"rk_live_", 16}, {"rk_test_", 16}, {"pk-lf-", 16}, // OpenAI, Anthropic, DashScope, Stripe
	{"AKIA", 20}, {"ASIA", 20}, {"ABIA", 20}, {"ACCA", 20}, // AWS
	{"AIza", 30}, {"ya29.", 20}, {"GOCSPX-", 20}, // GCP
	{"LTAI", 16}, {"AKID", 20}, {"STS.", 20}, // Alibaba Cloud, Tencent Cloud
	{"eyJ", 16},                                                                                               // JWT
	{"ghp_", 20}, {"gho_", 20}, {"ghu_", 20}, {"ghs_", 20}, {"ghr_", 20}, {"github_pat_", 20}, {"glpat-", 20}, // GitHub, GitLab
	{"xoxb-", 16}, {"xoxp-", 16}, {"xoxa-", 16}, {"xoxr-", 16}, {"xoxs-", 16}, {"xapp-", 16}, // Slack
	{"hf_", 20}, {"gsk_", 20}, {"xai-", 20}, {"r8_", 20}, {"nvapi-", 20}, {"pplx-", 20}, {"tvly-", 20}, {"npm_", 20}, {"pypi-", 20},
	{"SG.", 20}, {"dop_v1_", 20}, {"shpat_", 20}, {"dckr_pat_", 20},
}

// keyIn gives where in a word, or a name, a key begins; -1: nowhere. It may follow any sign, also one as URLs write it, but no letter.
func keyIn[text string | []byte](word text) int {
	for i := range len(word) {
		if i > 0 && isLetter(word[i-1]) && (i < 3 || word[i-3] != '%') {
			continue
		}
		switch word[i] {
		case 's', 'r', 'p', 'A', 'y', 'G', 'L', 'S', 'e', 'g', 'x', 'h', 'n', 't', 'd':
		default:
			continue
		}
		for _, p := range prefixes {
			if len(word)-i >= p.least && string(word[i:i+len(p.prefix)]) == p.prefix {
				return i
			}
		}
	}
	return -1
}

// withoutKey takes out of a name what is a key, and what follows it.
func withoutKey(name []byte) []byte {
	if i := keyIn(name); i >= 0 {
		return append(name[:i], aKey...)
	}
	return name
}

// isWord tells whether a byte may be in a key, a token, a mail address or base64.
func isWord(c byte) bool {
	switch c {
	case '-', '_', '.', '+', '/', '@', '%', '~':
		return true
	}
	return isLetter(c)
}

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isScheme tells whether a word says how one shows who one is, which is what follows.
func isScheme(word []byte) bool {
	return isOneOf(word, "bearer", "basic", "digest", "negotiate")
}

// labels are what people and programs call their secrets, at the end of a word and without signs.
var labels = []string{
	"password", "passwd", "passphrase", "passcode", "secret", "apikey", "secretkey", "accesskey", "privatekey", "accesstoken", "authtoken",
	"refreshtoken", "idtoken", "sessiontoken", "bearertoken", "authorization", "credential", "cookie", "pwd",
}

func isLabel(word []byte) bool {
	var plain [16]byte // the end of the word, in small letters, from behind
	n := 0
	for i := len(word) - 1; i >= 0 && n < len(plain); i-- {
		if c := word[i]; c != '_' && c != '-' {
			plain[n] = c | 0x20
			n++
		}
	}
	for _, l := range labels {
		if n >= len(l) && isReversed(plain[:len(l)], l) {
			return true
		}
	}
	return false
}

func isReversed(b []byte, word string) bool {
	for i := range b {
		if b[i] != word[len(word)-1-i] {
			return false
		}
	}
	return true
}

func isOneOf(word []byte, all ...string) bool {
	for _, one := range all {
		if len(word) == len(one) && bytes.EqualFold(word, []byte(one)) {
			return true
		}
	}
	return false
}

// isCredential tells what follows Bearer from the next word of a sentence: it is long, or has a digit.
func isCredential(word []byte) bool {
	return len(word) >= 20 || len(word) >= 6 && bytes.ContainsAny(word, "0123456789")
}

// awsSecretLength is that of the secret keys of AWS: less is asked of a word that is just as long.
const awsSecretLength = 40

// minRandom is how long a word is at least that looks as if it were drawn by lot.
const minRandom = 24

// isRandom tells whether a part of a word looks as if it were drawn by lot: hexadecimal, or small letters, capitals and digits that take
// turns more often than those of any name. It has no prefix to be known by, as the secret keys of AWS and Azure.
func isRandom(word []byte) bool {
	for len(word) >= minRandom {
		n := 0
		for n < len(word) && (isLetter(word[n]) || word[n] == '_' || word[n] == '-' || word[n] == '+' || word[n] == '/') {
			n++
		}
		if n >= minRandom && isMixed(word[:n]) {
			return true
		}
		word = word[min(n+1, len(word)):]
	}
	return false
}

func isMixed(part []byte) bool {
	var seen [4]bool
	turns, hex, longest := 0, 0, 0
	last := -1
	hexDigits := false
	for _, c := range part {
		class := classOf(c)
		seen[class] = true
		if last >= 0 && class != last && class != signs && last != signs {
			turns++
		}
		last = class
		if isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' {
			hex++
			hexDigits = hexDigits || isDigit(c)
			longest = max(longest, hex)
		} else {
			hex, hexDigits = 0, false
		}
	}
	if longest >= 32 && seen[digits] && (seen[small] || seen[capital]) {
		return true
	}
	least := 3
	if len(part) == awsSecretLength {
		least = 4
	}
	return seen[digits] && seen[small] && seen[capital] && turns*least >= len(part)
}

// The classes of letters.
const (
	signs = iota
	digits
	small
	capital
)

func classOf(c byte) int {
	switch {
	case isDigit(c):
		return digits
	case c >= 'a' && c <= 'z':
		return small
	case c >= 'A' && c <= 'Z':
		return capital
	}
	return signs
}

// appendWithoutEmail appends a word, with its mail addresses replaced.
func appendWithoutEmail(b, word []byte) []byte {
	done, last := 0, 0 // what of the word is written, and where the last sign ended
	for at := 0; at < len(word); {
		width := 0
		if word[at] == '@' {
			width = 1
		} else if word[at] == '%' && bytes.HasPrefix(word[at:], []byte("%40")) { // as URLs have it
			width = 3
		}
		if width == 0 {
			at++
			continue
		}
		local := at
		for local > last && isLocal(word[local-1]) {
			local--
		}
		end, dot := at+width, false
		for end < len(word) && (isLetter(word[end]) || word[end] == '-' || word[end] == '.') {
			dot = dot || word[end] == '.' && end > at+width
			end++
		}
		if local < at && dot {
			b = append(append(b, word[done:local]...), anEmail...)
			done, last, at = end, end, end
		} else {
			last, at = at+width, at+width
		}
	}
	return append(b, word[done:]...)
}

// isLocal tells whether a byte may be in front of the @.
func isLocal(c byte) bool {
	return isLetter(c) || c == '.' || c == '_' || c == '-' || c == '+' || c == '%'
}

package accesslog

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"remora.dev/remora/sidecar/record"
)

// Made up; in parts, so that nobody's scanner takes them for real ones.
const (
	openAI    = "sk-" + "proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z"
	awsID     = "AKIA" + "IOSFODNN7EXAMPLE"
	awsSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	google    = "AIza" + "SyD4x7Kf9Qw2Er5Ty8Ui1Op3As6Df0Gh2Jk"
	jwt       = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
	azure     = "0123456789abcdef" + "fedcba9876543210"
	pem       = "-----BEGIN PRIVATE " + "KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\n-----END PRIVATE KEY-----"
)

// shown gives what is shown of a prompt that came as a whole.
func shown(prompt string) string {
	var t texts
	return string(t.excerpt(nil, []byte(prompt), false, false, 16384).text)
}

func TestWhatIsSecretOrNamesAPersonIsTakenOut(t *testing.T) {
	f := func(prompt, want string) {
		t.Helper()
		if got := shown(prompt); got != want {
			t.Errorf("%q\n got %q\nwant %q", prompt, got, want)
		}
	}
	f("use "+openAI+", please", "use [key], please")
	f("key="+openAI, "key=[key]")
	f("%20"+openAI, "%20[key]")
	f("id "+awsID+" secret "+awsSecret+".", "id [key] secret [secret]")
	f(google, "[key]")
	f("LTAI"+"5tQx7Kf9Qw2Er5Ty", "[key]")
	f("Authorization: Bearer "+jwt, "Authorization: Bearer [secret]")
	f("send bearer abc123def along", "send bearer [token] along")
	f("a bearer of good news", "a bearer of good news")
	f("it says "+jwt+"\n", "it says [key]\n")
	f("Azure: "+azure, "Azure: [secret]")
	f("a"+pem+"b", "a[key]b")
	f("key:\n"+pem+"\nbye", "key:\n[key]\nbye")
	f(`{"password": "p@ss w0rd!#1", "user": "x"}`, `{"password": "[secret]", "user": "x"}`)
	f(`export DB_PASSWORD='hunter2;x' y`, `export DB_PASSWORD='[secret]' y`)
	f("api-key = 1234, next", "api-key = [secret], next")
	f(`{"max_tokens": 100, "token_count": 12}`, `{"max_tokens": 100, "token_count": 12}`)
	f(`{"authorization": "Basic dXNlcjpwYXNz"}`, `{"authorization": "Basic [secret]"}`)
	f(`{"secret": null}`, `{"secret": null}`)
	f("see postgres://app:hunter2@db.example/x", "see postgres://[credentials]@db.example/x")
	f("see https://example.com/a?b=c@d", "see https://example.com/a?b=c@d")

	f("mail joe.doe+x@mail.example.com now", "mail [email] now")
	f("请联系joe@example.com。", "请联系[email]。")
	f("joe%40example.com", "[email]")
	f("a@b@c.com a%40b%40c.com", "a@[email] a%40[email]")
	f("a@b, @here, x@y", "a@b, @here, x@y")
	f("user＠example.com", "[email]")
	f("jo\u200be@exam\u00adple.com", "[email]")

	f("call +1 (415) 555-2671 or 415-555-2671", "call +[phone] or [phone]")
	f("电话13800138000。", "电话[phone]。")
	f("电话１３８００１３８０００", "电话[phone]")
	f("+86 138 0013 8000", "+[phone]")
	f("010-12345678", "[phone]")
	f("at 1700000000, on 2024-01-15 10:30, 10.20.30.40", "at 1700000000, on 2024-01-15 10:30, 10.20.30.40")
	f("card 4111 1111 1111 1111 12/26", "card [card] 12/26")
	f("4111-1111-1111-1111", "[card]")
	f("4111111111111112", "4111111111111112") // its sum is wrong
	f("378282246310005", "[card]")
	f("id 11010519491231002X!", "id [id]!")
	f("id 110101 19900307 7715", "id [id]")
	f("id 110101199003077712", "id 110101199003077712")

	image := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a picture. ", 1100)))
	f(`{"url":"data:image/png;base64,`+image+`"}`, `{"url":"[image 12 kB]"}`)
	f(`see data:audio/wav;base64,AAAA, x`, `see [audio 3 B], x`)
	f(`{"b64_json":"`+image+`"}`, `{"b64_json":"[data 12 kB]"}`)
	f(`{"text":"caf\u00e9 \"sk-\u0061`+openAI[4:]+`\" \\u0061\nC:\\new"}`, "{\"text\":\"café \"[key]\" a\nC:\\new\"}")
	f("plain words, 42 of them: nothing wrong", "plain words, 42 of them: nothing wrong")
	f("model deepseek-ai/DeepSeek-R1-Distill-Qwen-32B of AbstractSingletonProxyFactoryBean2", "model deepseek-ai/DeepSeek-R1-Distill-Qwen-32B of AbstractSingletonProxyFactoryBean2")
	f("\x1b[31mred\x00\x01\xff\xfe", "\uFFFD[31mred\uFFFD")
}

func TestASecretThatIsSpreadOverTheEventsOfAnAnswerIsTakenOut(t *testing.T) {
	chunk := func(choice int, key, text string) string {
		said, _ := json.Marshal(text)
		return fmt.Sprintf(`data: {"id":"c","choices":[{"index":%d,"delta":{%q:%s},"finish_reason":null}]}`+"\n\n", choice, key, said)
	}
	var answer strings.Builder
	answer.WriteString(": ping\n\n")
	for i, c := range "mail joe@example.com, " + openAI + " ok" {
		answer.WriteString(chunk(0, "content", string(c)))
		if i < 12 {
			answer.WriteString(chunk(1, "reasoning_content", "4111 1111111"[i:i+1]))
		}
	}
	answer.WriteString(chunk(1, "reasoning_content", "11111."))
	answer.WriteString("data: [DONE]\n\n")
	if got, want := shown(answer.String()), "mail [email], [key] ok\n[card]."; got != want {
		t.Errorf("got %q", got)
	}
	responses := `event: response.output_text.delta
data: {"type":"response.output_text.delta","output_index":0,"delta":"138001"}

event: response.output_text.delta
data: {"type":"response.output_text.delta","output_index":0,"delta":"38000"}

data: {"type":"response.completed","response":{"output":[{"content":[{"text":"13800138000"}]}]}}

`
	if got := shown(responses); got != "[phone]" {
		t.Errorf("got %q", got)
	}
	anthropic := "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hel\"}}\n\n" +
		"data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"lo\"}}\n\n"
	if got := shown(anthropic); got != "Hello" {
		t.Errorf("got %q", got)
	}
}

var secrets = []string{openAI, awsID, awsSecret, google, jwt, azure, "joe.doe@mail.example.com", "13800138000", "+14155552671", "4111 1111 1111 1111", "11010519491231002X",
	"postgres://app:correcthorse@db.example", "Bearer abc123def456ghi789jkl", `password: "correct horse battery"`}

func TestNothingOfASecretIsShownWhereverATextIsCut(t *testing.T) {
	surroundings := [][2]string{{"", ""}, {"Hi ", " bye"}, {`{"messages":[{"content":"my \"`, `\" is it"}]}`}, {"你好", "，再见"}, {"x=", "&y=z"}, {"(", ")."}, {"\n", "\n"}}
	var texts texts
	for _, secret := range secrets {
		for _, around := range surroundings {
			whole := around[0] + secret + around[1]
			for end := range len(whole) + 1 {
				for _, early := range []bool{false, true} {
					e := texts.excerpt(nil, []byte(whole[:end]), !early, early, 2048)
					if piece := leaked(string(e.text), secret); piece != "" {
						t.Fatalf("of %q, cut to %q, %q is shown: %q", whole, whole[:end], piece, e.text)
					}
				}
			}
			for room := range len(whole) + 1 {
				e := texts.excerpt(nil, []byte(whole), false, false, room)
				if piece := leaked(string(e.text), secret); piece != "" {
					t.Fatalf("of %q, with room for %d, %q is shown: %q", whole, room, piece, e.text)
				}
				if len(e.text) > room || !utf8.Valid(e.text) {
					t.Fatalf("with room for %d: %q", room, e.text)
				}
			}
		}
	}
}

// leaked gives a piece of a secret that says something of it, if it is in a text.
func leaked(text, secret string) string {
	const telling = 6
	for i := 0; i+telling <= len(secret); i++ {
		piece := secret[i : i+telling]
		if strings.Contains("postgres://db.example Bearer password: \"", piece) || !strings.ContainsAny(piece, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
			continue
		}
		if strings.Contains(text, piece) && !strings.Contains(piece, "@db") {
			return piece
		}
	}
	return ""
}

func TestNoKeyOfAnyRecordIsInALine(t *testing.T) {
	keys := []string{openAI, awsID, google, jwt}
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		key := keys[random.IntN(len(keys))]
		in := func() string {
			around := []string{"", "model/", "ft:", " ", "\x00", "é", "Bearer "}
			return around[random.IntN(len(around))] + key + []string{"", ":x", "\n", " y"}[random.IntN(4)]
		}
		r := full()
		r.Host, r.AskedModel, r.RequestModel, r.ResponseModel = in(), in(), in(), in()
		body, _ := json.Marshal(map[string]any{"model": in(), "messages": []string{in(), in()}, in(): 1})
		r.Capture = &record.Capture{Prompt: body[:random.IntN(len(body)+1)], Answer: body, PromptTruncated: true}
		for _, form := range []Form{JSON, People} {
			if got := written(form, r, withCapture()); strings.Contains(got, key[4:12]) {
				t.Fatalf("%q is in %s", key, got)
			}
		}
	}
}

func TestRedactionTakesNoLongerForTextThatIsMeantToTakeLong(t *testing.T) {
	// Each byte of these may be the beginning of something. What is quadratic takes minutes for one of them, not milliseconds.
	for _, unit := range []string{"sk-", "eyJ", "@", "a@", "a@b.", "1 ", "1-", "1", "4111 ", "+1", "://", "://a@", "-----BEGIN ", "password=", "password:\"", "Bearer ", "data:;base64,", "data:image", "%40", "\\", "\\u", "\\\\u0061", "data: {\"index\":", "data: {\"content\":\"", "data: {\"index\":1,\"text\":\"x\"}\n", "{\"", "[", "é", "\xff", "=", "/+"} {
		text := []byte(strings.Repeat(unit, maxRaw/4/len(unit)))
		var all texts
		began := time.Now()
		for _, start := range []string{"", "data: ", "data: {\"text\":\""} {
			for _, truncated := range []bool{false, true} {
				all.excerpt(nil, append([]byte(start), text...), truncated, false, 16384)
			}
		}
		t.Logf("%-30q %s", unit, time.Since(began))
	}
}

func FuzzAnyCaptureGivesOneLineOfBoundedJSON(f *testing.F) {
	for _, s := range secrets {
		f.Add([]byte(s), []byte("data: {\"content\":\""+s+"\"}\n\n"), true)
	}
	f.Add([]byte("\\ud83d\\ude00\\u12"), []byte("data: \\"), false)
	s := withCapture()
	f.Fuzz(func(t *testing.T, prompt, answer []byte, truncated bool) {
		r := full()
		r.Capture = &record.Capture{Prompt: prompt, Answer: answer, PromptTruncated: truncated, AnswerTruncated: truncated}
		line := written(JSON, r, s)
		fields(t, line)
		if len(line) > 8<<10+2*6*s.Capture.Bytes {
			t.Errorf("%d bytes", len(line))
		}
		if people := written(People, r, s); strings.Count(people, "\n") != 1 {
			t.Errorf("%q", people)
		}
	})
}

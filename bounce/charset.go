package bounce

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
)

// charsets are the character sets notices come in, by the names they use.
var charsets = map[string]encoding.Encoding{
	"iso-8859-2": charmap.ISO8859_2, "iso-8859-5": charmap.ISO8859_5, "iso-8859-6": charmap.ISO8859_6,
	"iso-8859-7": charmap.ISO8859_7, "iso-8859-8": charmap.ISO8859_8, "iso-8859-9": charmap.ISO8859_9,
	"iso-8859-13": charmap.ISO8859_13, "iso-8859-15": charmap.ISO8859_15,
	"windows-1250": charmap.Windows1250, "windows-1251": charmap.Windows1251, "cp1251": charmap.Windows1251,
	"windows-1252": charmap.Windows1252, "windows-1253": charmap.Windows1253, "windows-1254": charmap.Windows1254,
	"windows-1255": charmap.Windows1255, "windows-1256": charmap.Windows1256, "windows-1257": charmap.Windows1257,
	"koi8-r": charmap.KOI8R, "koi8-u": charmap.KOI8U,
	"iso-2022-jp": japanese.ISO2022JP, "shift_jis": japanese.ShiftJIS, "shift-jis": japanese.ShiftJIS,
	"x-sjis": japanese.ShiftJIS, "windows-31j": japanese.ShiftJIS, "euc-jp": japanese.EUCJP,
	"gb2312": simplifiedchinese.GB18030, "gbk": simplifiedchinese.GB18030, "gb18030": simplifiedchinese.GB18030,
	"big5": traditionalchinese.Big5, "euc-kr": korean.EUCKR, "ks_c_5601-1987": korean.EUCKR,
	"utf-16": unicode.UTF16(unicode.BigEndian, unicode.UseBOM),
}

// toUTF8 decodes text. The declared character set is often wrong ("UFT-8") or
// missing, so what the bytes show counts more: ISO-2022-JP has its escape
// sequences, and text in another set is hardly ever valid UTF-8 by accident.
func toUTF8(b []byte, charset string) string {
	charset = strings.ToLower(strings.TrimSpace(charset))
	switch {
	case bytes.Contains(b, []byte("\x1b$")) || bytes.Contains(b, []byte("\x1b(")):
		return decodeAs(b, japanese.ISO2022JP)
	case utf8.Valid(b) && charset != "utf-16":
		return string(b)
	}
	if e, ok := charsets[charset]; ok {
		return decodeAs(b, e)
	}
	if charset == "" && looksChinese(b) {
		return decodeAs(b, simplifiedchinese.GB18030)
	}
	return decodeAs(b, charmap.Windows1252) // a superset of ISO 8859-1
}

func decodeAs(b []byte, e encoding.Encoding) string {
	out, err := e.NewDecoder().Bytes(b)
	if err != nil {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return string(out)
}

// looksChinese tells undeclared GB 2312 from Latin text: its high bytes come
// in pairs, and there are many of them.
func looksChinese(b []byte) bool {
	pairs := 0
	for i := 0; i < len(b); i++ {
		if b[i] < 0xa1 {
			continue
		}
		if i+1 >= len(b) || b[i+1] < 0xa1 {
			return false
		}
		pairs++
		i++
	}
	return pairs >= 4
}

// decodeTransfer undoes a Content-Transfer-Encoding (RFC 2045, 6), up to limit
// bytes of its result; what is damaged is skipped.
func decodeTransfer(body []byte, encoding string, limit int) []byte {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return fromBase64(body, limit)
	case "quoted-printable":
		return fromQuotedPrintable(body, limit)
	}
	if len(body) > limit {
		body = body[:limit]
	}
	return body
}

func fromBase64(body []byte, limit int) []byte {
	packed := make([]byte, 0, min(len(body), limit*4/3+4))
	for _, c := range body {
		if isBase64(c) {
			packed = append(packed, c)
			if len(packed) >= limit*4/3 {
				break
			}
		} else if c == '=' && len(packed)%4 != 0 {
			break // padding ends it; what follows was appended on the way
		}
	}
	if len(packed)%4 == 1 {
		packed = packed[:len(packed)-1]
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(packed)))
	n, _ := base64.RawStdEncoding.Decode(out, packed)
	return out[:n]
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

// fromQuotedPrintable leaves alone what is no escape: many senders declare the
// encoding and then write a bare "=".
func fromQuotedPrintable(body []byte, limit int) []byte {
	out := make([]byte, 0, min(len(body), limit))
	for i := 0; i < len(body) && len(out) < limit; i++ {
		c := body[i]
		if c != '=' {
			out = append(out, c)
			continue
		}
		end := i + 1
		for end < len(body) && (body[end] == ' ' || body[end] == '\t') {
			end++
		}
		if end >= len(body) || body[end] == '\n' {
			i = end // a soft line break
			continue
		}
		if i+2 < len(body) {
			hi, okHi := hexDigit(body[i+1])
			lo, okLo := hexDigit(body[i+2])
			if okHi && okLo {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// looksQuotedPrintable finds the encoding in bodies that forgot to declare it.
func looksQuotedPrintable(body []byte) bool {
	const soft = "=\n"
	return bytes.Count(body, []byte(soft)) >= 2 && (bytes.Contains(body, []byte("=3D")) || bytes.Contains(body, []byte("=20")))
}

package seal

import (
	"testing"

	"github.com/stretchr/testify/require"

	"aftersend/id"
)

func TestOpensOnlyWhereItWasSealed(t *testing.T) {
	box, err := New(NewKey(1))
	require.NoError(t, err)
	row := id.New()
	sealed := box.Seal([]byte("hunter2"), "sources", "verification", row)
	require.NotContains(t, string(sealed), "hunter2")

	plain, err := box.Open(sealed, "sources", "verification", row)
	require.NoError(t, err)
	require.Equal(t, "hunter2", string(plain))

	for name, open := range map[string]func() ([]byte, error){
		"another row":    func() ([]byte, error) { return box.Open(sealed, "sources", "verification", id.New()) },
		"another column": func() ([]byte, error) { return box.Open(sealed, "sources", "token_sealed", row) },
		"another table":  func() ([]byte, error) { return box.Open(sealed, "webhooks", "verification", row) },
		"cut short":      func() ([]byte, error) { return box.Open(sealed[:9], "sources", "verification", row) },
		"nothing":        func() ([]byte, error) { return box.Open(nil, "sources", "verification", row) },
		"flipped bit": func() ([]byte, error) {
			damaged := append([]byte(nil), sealed...)
			damaged[len(damaged)-1] ^= 1
			return box.Open(damaged, "sources", "verification", row)
		},
	} {
		_, err := open()
		require.ErrorIs(t, err, ErrOpen, name)
	}
}

func TestRotationOpensOldAndSealsNew(t *testing.T) {
	old, fresh := NewKey(1), NewKey(2)
	row := id.New()
	before, err := New(old)
	require.NoError(t, err)
	sealed := before.Seal([]byte("x"), "t", "c", row)

	keys, err := ParseKeys(fresh.String() + ", " + old.String())
	require.NoError(t, err)
	after, err := New(keys...)
	require.NoError(t, err)
	_, err = after.Open(sealed, "t", "c", row)
	require.NoError(t, err)
	require.Equal(t, byte(2), after.Seal([]byte("x"), "t", "c", row)[0])
}

func TestParseKeysRefuses(t *testing.T) {
	for _, s := range []string{"", "1", "1:short", "x:" + NewKey(1).String(), "300:AAAA"} {
		_, err := ParseKeys(s)
		require.Error(t, err, s)
	}
}

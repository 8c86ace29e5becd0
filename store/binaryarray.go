package store

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Bulk statements take one array parameter per column, in Postgres's binary
// wire format: lib/pq sends a []byte as it is (binary_parameters=yes), so that
// raw bodies are neither spelt in hex by us nor read from hex by the server.
// `select unnest($1::uuid[]), unnest($2::bytea[])` walks such arrays side by
// side without a copy in between, as `from unnest($1, $2)` would make.

// Object ids of element types, from Postgres's pg_type.dat.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18 // "char", one byte
	oidInt8        = 20
	oidText        = 25
	oidInet        = 869
	oidTimestamptz = 1184
	oidUUID        = 2950
)

// appendArray appends rows as a binary array of one dimension. element appends
// one element's bytes to dst and returns it, or nil for NULL.
func appendArray[T any](dst []byte, oid uint32, rows []T, element func(dst []byte, row *T) []byte) []byte {
	be := binary.BigEndian
	dst = be.AppendUint32(dst, 1) // dimensions
	dst = be.AppendUint32(dst, 1) // there may be NULLs
	dst = be.AppendUint32(dst, oid)
	dst = be.AppendUint32(dst, uint32(len(rows)))
	dst = be.AppendUint32(dst, 1) // lower bound
	for i := range rows {
		start := len(dst)
		dst = be.AppendUint32(dst, ^uint32(0)) // the length, -1 for NULL
		if out := element(dst, &rows[i]); out != nil {
			dst = out
			be.PutUint32(dst[start:], uint32(len(dst)-start-4))
		}
	}
	return dst
}

// postgresEpoch is where Postgres counts microseconds from.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func appendTimestamptz(dst []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(t.UnixMicro()-postgresEpoch))
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// appendInet spells an address as a single host; the zero address is NULL.
// Zones are dropped: inet has none.
func appendInet(dst []byte, a netip.Addr) []byte {
	a = a.Unmap()
	switch {
	case !a.IsValid():
		return nil
	case a.Is4():
		b := a.As4()
		return append(append(dst, 2, 32, 0, 4), b[:]...) // family, bits, is no cidr, length
	default:
		b := a.As16()
		return append(append(dst, 3, 128, 0, 16), b[:]...)
	}
}

package capnweb

import (
	"math"
	"math/big"
	"strconv"
	"time"
)

func number(v any) (float64, bool) {
	switch x := v.(type) {
	case float64:
		return x, true
	case int64:
		return float64(x), true
	}
	return 0, false
}

func integer(v any) (int64, bool) {
	switch x := v.(type) {
	case int64:
		return x, true
	case float64:
		i := int64(x)
		return i, float64(i) == x && math.Abs(x) <= 1<<53
	case *big.Int:
		return x.Int64(), x.IsInt64()
	}
	return 0, false
}

func unsigned(v any) (uint64, bool) {
	if x, ok := v.(*big.Int); ok {
		return x.Uint64(), x.IsUint64()
	}
	i, ok := integer(v)
	return uint64(i), ok && i >= 0
}

func bigOf(v any) *big.Int {
	switch x := v.(type) {
	case *big.Int:
		return new(big.Int).Set(x)
	case int64:
		return big.NewInt(x)
	case float64:
		if i := int64(x); float64(i) == x && math.Abs(x) <= 1<<53 {
			return big.NewInt(i)
		}
	}
	return nil
}

// appendPlainJSON writes a tree as ordinary JSON, for types with an UnmarshalJSON.
func appendPlainJSON(b []byte, v any) ([]byte, error) {
	var err error
	switch x := v.(type) {
	case nil, UndefinedType:
		return append(b, "null"...), nil
	case bool:
		return strconv.AppendBool(b, x), nil
	case float64:
		if _, ok := finite(x); !ok {
			return append(b, "null"...), nil
		}
		return appendNumber(b, x), nil
	case int64:
		return strconv.AppendInt(b, x, 10), nil
	case string:
		return appendString(b, x), nil
	case URL:
		return appendString(b, string(x)), nil
	case time.Time:
		return appendString(b, x.UTC().Format("2006-01-02T15:04:05.000Z")), nil
	case *big.Int:
		return x.Append(b, 10), nil
	case []any:
		b = append(b, '[')
		for i := range x {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendPlainJSON(b, x[i]); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case Object:
		b = append(b, '{')
		n := 0
		for i := range x {
			if x[i].Value == any(Undefined) {
				continue
			}
			if n > 0 {
				b = append(b, ',')
			}
			n++
			b = append(appendString(b, x[i].Key), ':')
			if b, err = appendPlainJSON(b, x[i].Value); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, typeErrorf("a %s has no JSON form", kindName(v))
}

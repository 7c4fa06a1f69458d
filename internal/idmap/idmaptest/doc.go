// Package idmaptest runs programs as an ordinary user who has ranges of ids, on a machine that knows neither
// the user nor the ranges: it shows them accounts of its own. And it removes what belongs to such ids.
package idmaptest

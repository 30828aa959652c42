package metrics

import "strconv"

// LogLinesDropped shows how many lines of a log were not written, as nobody took them in time. log is "access" or "diagnostics".
func (s *Set) LogLinesDropped(log string, count func() uint64) {
	s.set.NewGauge("remora_log_lines_dropped_total{log="+strconv.Quote(log)+"}", func() float64 { return float64(count()) })
}

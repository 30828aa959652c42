// Package monitoring holds the tests of config/monitoring: each alert is tried with promtool.
package monitoring

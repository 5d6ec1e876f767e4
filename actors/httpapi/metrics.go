package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is the node's registry. Series are bounded: labels are routes,
// methods and statuses, never tables, partitions or keys.
type metrics struct {
	registry *prometheus.Registry
	seconds  *prometheus.HistogramVec
	requests *prometheus.CounterVec
	panics   prometheus.Counter
}

func newMetrics(m Meter) *metrics {
	x := &metrics{
		registry: prometheus.NewRegistry(),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pando_http_request_seconds", Help: "Time to answer an HTTP request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"route", "method"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pando_http_requests_total", Help: "HTTP requests answered.",
		}, []string{"route", "method", "status"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pando_http_panics_total", Help: "HTTP requests that hit a fault.",
		}),
	}
	x.registry.MustRegister(x.seconds, x.requests, x.panics, nodeNumbers{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return x
}

func (x *metrics) observe(route, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		method = "other" // a client may send any word
	}
	x.seconds.WithLabelValues(route, method).Observe(took.Seconds())
	x.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
}

func (x *metrics) serve(w http.ResponseWriter, r *http.Request) error {
	promhttp.HandlerFor(x.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}

// nodeNumbers collects the node's own counters at the moment of a scrape.
type nodeNumbers struct{ meter Meter }

// Describe sends nothing: the set of counters belongs to the node.
func (nodeNumbers) Describe(chan<- *prometheus.Desc) {}

// Collect reads the node's counters.
func (n nodeNumbers) Collect(ch chan<- prometheus.Metric) {
	for _, c := range n.meter.Counters() {
		kind := prometheus.CounterValue
		if c.Gauge {
			kind = prometheus.GaugeValue
		}
		m, err := prometheus.NewConstMetric(prometheus.NewDesc("pando_"+c.Name, c.Help, nil, nil), kind, c.Value)
		if err != nil {
			m = prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		}
		ch <- m
	}
}

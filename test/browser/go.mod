module github.com/ampbridge/ampbridge/test/browser

go 1.26.0

require (
	github.com/ampbridge/ampbridge v0.0.0-00010101000000-000000000000
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
)

require (
	github.com/go-json-experiment/json v1.27.2 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	go.yaml.in/yaml/v4 v4.0.0 // indirect
)

replace github.com/ampbridge/ampbridge => ../..

package ollama

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
)

// A client asks one Ollama for one model.
type client struct {
	*api.Client
	http      *http.Client
	base      *url.URL
	model     string
	keepAlive *api.Duration // how long the model stays loaded after a request; nil: as long as the server says
	context   int           // tokens that the model's context holds, once it is loaded
	embeds    bool          // it makes embeddings and does not chat, once it is loaded
}

// newClient returns a client whose connections are made by transport.
func newClient(base *url.URL, transport *http.Transport, model string) *client {
	transport.DisableKeepAlives = true // a connection of its own ends a request's work when it is closed
	transport.DisableCompression = true
	c := &http.Client{
		Transport:     watchedTransport{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &client{Client: api.NewClient(base, c), http: c, base: base, model: model}
}

// load has Ollama load the model.
func (cl *client) load(ctx context.Context) error {
	err := cl.Chat(ctx, &api.ChatRequest{Model: cl.model, KeepAlive: cl.keepAlive}, func(api.ChatResponse) error { return nil })
	if cl.embeds = err != nil && errors.Is(new(call).translate(err, 0), backends.ErrUnsupported); cl.embeds {
		_, err = cl.Embed(ctx, &api.EmbedRequest{Model: cl.model, KeepAlive: cl.keepAlive}) // of nothing
	}
	return err
}

// checkContext says why a context of so many tokens is not what the release says.
func checkContext(tokens int, args map[string]string) error {
	if want, ok := args["num_ctx"]; ok && want != strconv.Itoa(tokens) {
		return fmt.Errorf("its context holds %d tokens, and runtime.args.num_ctx says %s: the model was trained with less", tokens, want)
	}
	return nil
}

package modelproxy

import (
	"net/url"
	"slices"
)

// Known is a provider that needs no configuration but its key.
type Known struct {
	ID   string     // as OpenCode names it
	Name string     // for people
	Env  []string   // the variables that may hold the key; the first that is set wins
	Base string     // base URL, as the provider's SDK in OpenCode has it by default
	Auth AuthScheme // how the key is sent

	// PublicKey is what is sent when there is no key; "" for a provider that
	// needs one.
	PublicKey string
}

// known is the table. The variables are those of the catalogue in OpenCode
// 1.18.33, the base URLs the defaults of the SDKs it contains (for deepseek,
// openrouter and opencode: of its catalogue).
var known = []Known{
	{ID: "anthropic", Name: "Anthropic", Env: []string{"ANTHROPIC_API_KEY"}, Base: "https://api.anthropic.com/v1", Auth: XAPIKey},
	{ID: "deepseek", Name: "DeepSeek", Env: []string{"DEEPSEEK_API_KEY"}, Base: "https://api.deepseek.com", Auth: Bearer},
	{ID: "google", Name: "Google", Env: []string{"GOOGLE_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY", "GEMINI_API_KEY"}, Base: "https://generativelanguage.googleapis.com/v1beta", Auth: XGoogAPIKey},
	{ID: "groq", Name: "Groq", Env: []string{"GROQ_API_KEY"}, Base: "https://api.groq.com/openai/v1", Auth: Bearer},
	{ID: "mistral", Name: "Mistral", Env: []string{"MISTRAL_API_KEY"}, Base: "https://api.mistral.ai/v1", Auth: Bearer},
	{ID: "openai", Name: "OpenAI", Env: []string{"OPENAI_API_KEY"}, Base: "https://api.openai.com/v1", Auth: Bearer},
	{ID: "opencode", Name: "OpenCode Zen", Env: []string{"OPENCODE_API_KEY"}, Base: "https://opencode.ai/zen/v1", Auth: ByPath, PublicKey: "public"},
	{ID: "openrouter", Name: "OpenRouter", Env: []string{"OPENROUTER_API_KEY"}, Base: "https://openrouter.ai/api/v1", Auth: Bearer},
	{ID: "xai", Name: "xAI", Env: []string{"XAI_API_KEY"}, Base: "https://api.x.ai/v1", Auth: Bearer},
}

// KnownProviders returns the table, sorted by ID.
func KnownProviders() []Known {
	t := slices.Clone(known)
	for i := range t {
		t[i].Env = slices.Clone(t[i].Env)
	}
	return t
}

// LookupKnown returns the entry of the table for an ID.
func LookupKnown(id string) (Known, bool) {
	for _, k := range KnownProviders() {
		if k.ID == id {
			return k, true
		}
	}
	return Known{}, false
}

// Provider returns the provider for a key. Without one it is the keyless form,
// if there is one: see PublicKey.
func (k Known) Provider(key Secret) Provider {
	u, err := url.Parse(k.Base)
	if err != nil {
		panic("modelproxy: table: " + err.Error()) // a constant of ours
	}
	if key.IsZero() {
		key = NewSecret(k.PublicKey)
	}
	return Provider{ID: k.ID, Upstream: u, Key: key, Auth: k.Auth}
}

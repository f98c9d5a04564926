package mrse;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.inject.AbstractModule;
import com.yahoo.application.container.impl.ClassLoaderOsgiFramework;
import com.yahoo.config.ConfigInstance;
import com.yahoo.config.FileReference;
import com.yahoo.config.subscription.ConfigInterruptedException;
import com.yahoo.config.subscription.SubscriberClosedException;
import com.yahoo.container.ComponentsConfig;
import com.yahoo.container.Container;
import com.yahoo.container.QrConfig;
import com.yahoo.container.di.config.Subscriber;
import com.yahoo.container.di.config.SubscriberFactory;
import com.yahoo.container.jdisc.ConfiguredApplication;
import com.yahoo.container.jdisc.JdiscBindingsConfig;
import com.yahoo.filedistribution.fileacquirer.MockFileAcquirer;
import com.yahoo.jdisc.application.Application;
import com.yahoo.jdisc.http.ConnectorConfig;
import com.yahoo.jdisc.test.TestDriver;
import com.yahoo.path.Path;
import com.yahoo.vespa.config.ConfigKey;
import com.yahoo.vespa.config.ConfigPayload;
import com.yahoo.vespa.config.ConfigTransformer;
import com.yahoo.vespa.config.UrlDownloader;
import com.yahoo.vespa.config.search.DispatchNodesConfig;
import com.yahoo.vespa.model.VespaModel;

import java.io.File;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;

/** Starts the real container of a package in this JVM, on a free port, with a ContentNode behind it, and sends it requests. */
class ServedContainer {

    private static volatile VespaModel serving;

    /** {"package": folder, "port", "hits", "requests": [{"path", "body"}]} → {"answers": [{"status", "body", "seen"}]} */
    static ObjectNode ask(JsonNode job) throws Exception {
        System.setProperty("vespa.local", "true"); // before the model is built: the dispatcher then takes its nodes from config
        Package app = Package.load(java.nio.file.Path.of(job.get("package").asText()), false);
        if (app.model == null) throw new IllegalArgumentException(app.verdict().toString());
        ContentNode node = new ContentNode(app.model, job.get("hits"));
        TestDriver container = start(app.model, node.listen(), job.get("port").asInt());

        ObjectNode answer = Judge.json.createObjectNode();
        var answers = answer.putArray("answers");
        HttpClient client = HttpClient.newHttpClient();
        for (JsonNode request : job.get("requests")) {
            var builder = HttpRequest.newBuilder(URI.create("http://localhost:" + job.get("port").asInt() + request.get("path").asText()));
            if (request.has("body"))
                builder.header("Content-Type", request.path("type").asText("application/json")).POST(HttpRequest.BodyPublishers.ofString(request.get("body").asText()));
            node.seen = null;
            HttpResponse<String> response = client.send(builder.build(), HttpResponse.BodyHandlers.ofString());
            ObjectNode entry = answers.addObject().put("status", response.statusCode()).put("body", response.body());
            if (node.seen != null) entry.set("seen", node.seen);
        }
        container.close(); // the next package starts its own
        return answer;
    }

    private static TestDriver start(VespaModel model, int contentPort, int httpPort) {
        String container = model.getContainerClusters().values().iterator().next().getContainers().get(0).getConfigId();
        System.setProperty("config.id", container);
        if (serving == null) { // these can be set once in a JVM
            Container.get().setCustomFileAcquirer(new MockFileAcquirer() { // "distributed" files are those in the package
                @Override public File waitFor(FileReference reference, long timeout, TimeUnit unit) {
                    return serving.applicationPackage().getFileReference(Path.fromString(reference.value()));
                }
            });
            Container.get().disableUrlDownloader();
            ConfigTransformer.setUrlDownloader(new UrlDownloader()); // unused, but without one a model's path="…" is not resolved
        }
        serving = model;
        return TestDriver.newInstance(new ClassLoaderOsgiFramework(), null, false, new AbstractModule() {
            @Override protected void configure() {
                bind(Application.class).to(ConfiguredApplication.class);
                bind(SubscriberFactory.class).toInstance(new ModelConfig(model, contentPort, httpPort));
            }
        });
    }

    /** Gives each component its config from the model, once, with this machine's ports in it. */
    private record ModelConfig(VespaModel model, int contentPort, int httpPort) implements SubscriberFactory {

        @Override public void reloadActiveSubscribers(long generation) { throw new UnsupportedOperationException(); }
        @Override public void close() { }

        @Override public Subscriber getSubscriber(Set<? extends ConfigKey<?>> keys, String name) {
            return new Subscriber() {
                private long generation = -1;
                private volatile boolean closed = false;

                @SuppressWarnings("unchecked")
                @Override public Map<ConfigKey<ConfigInstance>, ConfigInstance> config() {
                    Map<ConfigKey<ConfigInstance>, ConfigInstance> configs = new HashMap<>();
                    for (ConfigKey<?> key : keys) configs.put((ConfigKey<ConfigInstance>) key, get(key));
                    return configs;
                }

                @Override public long waitNextGeneration(boolean isInitializing) {
                    try {
                        if (++generation > 0) while ( ! closed) Thread.sleep(100);
                    } catch (InterruptedException e) {
                        throw new ConfigInterruptedException(e);
                    }
                    if (closed) throw new SubscriberClosedException();
                    return generation;
                }

                @Override public boolean configChanged() { return generation == 0; }
                @Override public long generation() { return generation; }
                @Override public boolean applyOnRestart() { return false; }
                @Override public void close() { closed = true; }
            };
        }

        @SuppressWarnings("unchecked")
        private ConfigInstance get(ConfigKey<?> key) {
            var type = (Class<ConfigInstance>) key.getConfigClass();
            ConfigInstance config = model.getConfig(type, key.getConfigId());
            if (config instanceof QrConfig c) { // no location broker here
                config = new QrConfig.Builder(c).rpc(new QrConfig.Rpc.Builder().enabled(false)).build();
            } else if (config instanceof ConnectorConfig c) {
                config = new ConnectorConfig.Builder(c).listenPort(httpPort).build();
            } else if (config instanceof DispatchNodesConfig c) {
                var nodes = new DispatchNodesConfig.Builder(c);
                nodes.node.forEach(node -> node.port(contentPort));
                config = nodes.build();
            } else if (config instanceof ComponentsConfig c) {
                var some = new ComponentsConfig.Builder(c);
                some.components.removeIf(component -> feeds(component.build().id()));
                config = some.build();
            } else if (config instanceof JdiscBindingsConfig c) {
                var some = new JdiscBindingsConfig.Builder(c);
                some.handlers.keySet().removeIf(ModelConfig::feeds);
                config = some.build();
            }
            return ConfigPayload.fromInstance(config).toInstance(type, key.getConfigId()); // resolves file references
        }

        /** Feeding needs a message bus and com.yahoo.vespa:docprocs, which is not published. */
        private static boolean feeds(String id) { return id.matches("com.yahoo.docproc.*|.*@Mbus(Client|Server)"); }
    }
}

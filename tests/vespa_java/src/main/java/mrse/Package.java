package mrse;

import ai.vespa.rankingexpression.importer.onnx.OnnxImporter;
import ai.vespa.rankingexpression.importer.vespa.VespaImporter;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.config.FileReference;
import com.yahoo.config.application.api.ApplicationPackage;
import com.yahoo.config.application.api.DeployLogger;
import com.yahoo.config.model.api.ApplicationClusterEndpoint;
import com.yahoo.config.model.api.ContainerEndpoint;
import com.yahoo.config.model.api.ValidationParameters;
import com.yahoo.config.model.application.provider.FilesApplicationPackage;
import com.yahoo.config.model.application.provider.MockFileRegistry;
import com.yahoo.config.model.deploy.DeployState;
import com.yahoo.config.model.deploy.TestProperties;
import com.yahoo.config.model.provision.InMemoryProvisioner;
import com.yahoo.config.provision.Environment;
import com.yahoo.config.provision.NodeResources;
import com.yahoo.config.provision.RegionName;
import com.yahoo.config.provision.Zone;
import com.yahoo.io.IOUtils;
import com.yahoo.vespa.model.VespaModel;
import com.yahoo.vespa.model.application.validation.Validation;
import com.yahoo.yolean.Exceptions;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import java.util.logging.Level;

/** An application package as a config server would take it: preprocessed, its XML checked, the model built and validated. */
class Package {

    VespaModel model;                 // null if the package was refused
    private String error;             // Vespa's own message
    private final ArrayNode messages = Judge.json.createArrayNode();
    private final ArrayNode actions = Judge.json.createArrayNode(); // what must be done before a change works
    private YqlCheck yql;

    static Package load(Path source, boolean hosted) { return load(source, hosted, null); }

    /** previous: what is deployed already, or null; Vespa then also judges the change. */
    static Package load(Path source, boolean hosted, VespaModel previous) {
        Package loaded = new Package();
        try {
            loaded.model = loaded.build(source, hosted, previous);
        } catch (Exception e) {
            loaded.error = Exceptions.toMessageString(e);
        }
        return loaded;
    }

    /**
     * {"error": text or null, "messages": [[level, text]], "problems": [what Vespa's C++ check of ranking would say],
     *  "actions": [restart, re-index or re-feed that the change from the previous package asks for]}
     */
    ObjectNode verdict() {
        ObjectNode verdict = Judge.json.createObjectNode().put("error", error);
        verdict.set("messages", messages);
        verdict.set("actions", actions);
        ArrayNode problems = verdict.putArray("problems");
        if (model != null) RankSetup.problems(model).forEach(problems::add);
        return verdict;
    }

    YqlCheck yql() {
        if (yql == null) yql = new YqlCheck(model);
        return yql;
    }

    private VespaModel build(Path source, boolean hosted, VespaModel previous) throws Exception {
        Path work = Files.createTempDirectory("vespa-judge"); // deploying writes models.generated/ into the package: judge a copy
        System.setProperty("vespa.home", work.toString());
        IOUtils.copyDirectory(source.toFile(), work.resolve("app").toFile());
        DeployLogger logger = (level, message) -> messages.add(Judge.json.createArrayNode().add(level.getName()).add(message));
        Zone zone = hosted ? new Zone(Environment.prod, RegionName.from("aws-us-east-1c")) : Zone.defaultZone();

        var files = new FilesApplicationPackage.Builder(work.resolve("app").toFile()).preprocessedDir(work.resolve("preprocessed").toFile()).build();
        try {
            files.validateFileExtensions();
        } catch (IllegalArgumentException e) {
            if (hosted) throw e;
            logger.log(Level.WARNING, e.getMessage());
        }
        ApplicationPackage app = files.preprocess(zone, logger);
        app.validateXML();
        var registry = new MockFileRegistry() { // as the config server's: a file that the package names must exist
            @Override public FileReference addFile(String path) {
                if ( ! Files.exists(work.resolve("preprocessed").resolve(path)))
                    throw new IllegalArgumentException("No such file in the application package: " + path);
                return super.addFile(path);
            }
        };
        ValidationParameters parameters = new ValidationParameters();
        var builder = new DeployState.Builder()
                .applicationPackage(app)
                .properties(new TestProperties().setHostedVespa(hosted).setMultitenant(hosted))
                .zone(zone)
                .fileRegistry(registry)
                .modelImporters(List.of(new VespaImporter(), new OnnxImporter()))
                .deployLogger(logger);
        if (hosted) // what Vespa Cloud would bring: hosts, and a name for each container cluster
            builder.modelHostProvisioner(new InMemoryProvisioner(12, new NodeResources(8, 32, 250, 10), false))
                   .endpoints(Set.of(new ContainerEndpoint("default", ApplicationClusterEndpoint.Scope.zone, List.of("default.example.vespa-app.cloud"))));
        if (previous != null) builder.previousModel(previous);
        DeployState state = builder.build(parameters);
        VespaModel built = new VespaModel(state);
        for (var action : new Validation().validate(built, parameters, state))
            actions.add(action.getType() + ": " + action.getMessage());
        return built;
    }
}

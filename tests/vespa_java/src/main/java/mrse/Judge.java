package mrse;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.yolean.Exceptions;

import java.io.File;
import java.io.IOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.logging.Level;
import java.util.logging.Logger;

/**
 * One JVM that answers all questions about application packages:  Judge JOB.json ANSWER.json
 * The job's keys, each optional: packages, config, functions, onnx, yql, indexing, serve (see test_vespa_java.py, which writes it).
 */
public class Judge {

    static final ObjectMapper json = new ObjectMapper();

    public static void main(String[] args) throws Exception {
        Logger.getLogger("").setLevel(Level.OFF);
        JsonNode job = json.readTree(new File(args[0]));
        ObjectNode answer = json.createObjectNode();
        Map<String, Package> packages = new HashMap<>();

        ObjectNode verdicts = answer.putObject("packages");
        for (JsonNode entry : job.path("packages")) {
            Package previous = packages.get(entry.path("after").asText());
            Package loaded = Package.load(Path.of(entry.get("dir").asText()), entry.path("hosted").asBoolean(), previous == null ? null : previous.model);
            packages.put(entry.get("name").asText(), loaded);
            verdicts.set(entry.get("name").asText(), loaded.verdict());
        }
        ObjectNode configs = answer.putObject("config");
        for (JsonNode name : job.path("config"))
            configs.set(name.asText(), DerivedConfig.of(packages.get(name.asText()).model));

        var functions = answer.putArray("functions");
        for (JsonNode entry : job.path("functions"))
            functions.add(RankFunctions.evaluateAll(packages.get(entry.get("package").asText()).model, entry.get("features")));

        var onnx = answer.putArray("onnx");
        for (JsonNode entry : job.path("onnx"))
            onnx.add(RankFunctions.runOnnx(entry.get("file").asText(), entry.get("output").asText(), entry.get("inputs")));

        var yql = answer.putArray("yql");
        for (JsonNode entry : job.path("yql"))
            yql.add(packages.get(entry.get("package").asText()).yql().parse(entry));

        var indexing = answer.putArray("indexing");
        for (JsonNode entry : job.path("indexing"))
            indexing.add(Indexing.run(entry));

        var served = answer.putArray("serve");
        for (JsonNode entry : job.path("serve")) {
            try {
                served.add(ServedContainer.ask(entry));
            } catch (Exception e) {
                served.addObject().put("error", Exceptions.toMessageString(e));
            }
        }
        int exit = 0;
        try {
            json.writeValue(new File(args[1]), answer);
        } catch (IOException e) { // a full disk
            e.printStackTrace();
            exit = 1;
        }
        Runtime.getRuntime().halt(exit); // the container's threads do not end by themselves
    }
}

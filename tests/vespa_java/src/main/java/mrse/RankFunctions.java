package mrse;

import ai.vespa.modelintegration.evaluator.EmbeddedOnnxRuntime;
import ai.vespa.models.evaluation.FunctionEvaluator;
import ai.vespa.models.evaluation.ModelsEvaluator;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.config.FileReference;
import com.yahoo.filedistribution.fileacquirer.MockFileAcquirer;
import com.yahoo.path.Path;
import com.yahoo.tensor.Tensor;
import com.yahoo.tensor.TensorType;
import com.yahoo.vespa.config.search.RankProfilesConfig;
import com.yahoo.vespa.config.search.core.OnnxModelsConfig;
import com.yahoo.vespa.config.search.core.RankingConstantsConfig;
import com.yahoo.vespa.config.search.core.RankingExpressionsConfig;
import com.yahoo.vespa.model.VespaModel;
import com.yahoo.yolean.Exceptions;

import java.io.File;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Vespa's evaluator over the functions of the item schema's rank profiles, and over ONNX files. */
class RankFunctions {

    /** Config id of the item schema, e.g. items/search/cluster.items/item */
    static String itemSchema(VespaModel model) {
        return model.getContentClusters().values().iterator().next().getSearch().getSearchCluster().getDocumentDbs().stream()
                    .map(db -> db.getConfigId()).filter(id -> id.endsWith("/item")).findFirst().orElseThrow();
    }

    static ModelsEvaluator evaluator(VespaModel model) {
        String id = itemSchema(model);
        var files = new MockFileAcquirer() {
            @Override public File waitFor(FileReference reference, long timeout, TimeUnit unit) {
                return model.applicationPackage().getFileReference(Path.fromString(reference.value()));
            }
        };
        var profiles = new RankProfilesConfig.Builder(model.getConfig(RankProfilesConfig.class, id));
        for (var profile : profiles.rankprofile) // a function that is a match-feature would be an argument of the others
            profile.fef.property.removeIf(property -> property.build().name().equals("vespa.match.feature"));
        return new ModelsEvaluator(profiles.build(), model.getConfig(RankingConstantsConfig.class, id), model.getConfig(RankingExpressionsConfig.class, id),
                                   model.getConfig(OnnxModelsConfig.class, id), files, EmbeddedOnnxRuntime.createTestInstance());
    }

    /** {profile: {function: value or {"error"}}}, every function of every profile, its arguments taken from `features` */
    static ObjectNode evaluateAll(VespaModel model, JsonNode features) {
        ObjectNode all = Judge.json.createObjectNode();
        for (var profile : evaluator(model).models().values()) {
            ObjectNode values = all.putObject(profile.name());
            for (var function : profile.functions()) {
                if (function.getName().contains("@")) continue; // made by Vespa
                try {
                    FunctionEvaluator evaluator = profile.evaluatorOf(function.getName());
                    for (var argument : evaluator.function().argumentTypes().entrySet()) {
                        JsonNode value = features.get(argument.getKey());
                        if (value == null) throw new IllegalArgumentException("no value for " + argument.getKey());
                        evaluator.bind(argument.getKey(), tensor(argument.getValue(), value));
                    }
                    values.set(function.getName(), encode(evaluator.evaluate()));
                } catch (Exception e) {
                    values.putObject(function.getName()).put("error", Exceptions.toMessageString(e));
                }
            }
        }
        return all;
    }

    /** One output of an ONNX file by Vespa's evaluator; inputs are {"name": {"type": tensor type, "value": literal}} */
    static ObjectNode runOnnx(String file, String output, JsonNode inputs) {
        Map<String, Tensor> bound = new HashMap<>();
        inputs.properties().forEach(input -> bound.put(input.getKey(),
                Tensor.from(TensorType.fromSpec(input.getValue().get("type").asText()), input.getValue().get("value").asText())));
        return encode(EmbeddedOnnxRuntime.createTestInstance().evaluatorOf(file).evaluate(bound, output));
    }

    private static Tensor tensor(TensorType type, JsonNode value) {
        return value.isNumber() ? Tensor.from(value.asDouble()) : Tensor.from(type, value.asText());
    }

    /** {"type": …, "cells": [[[labels of the address], value], …]}, the address in the order of the type's dimensions */
    private static ObjectNode encode(Tensor tensor) {
        ObjectNode encoded = Judge.json.createObjectNode().put("type", tensor.type().toString());
        ArrayNode cells = encoded.putArray("cells");
        tensor.cellIterator().forEachRemaining(cell -> {
            ArrayNode entry = cells.addArray(), address = entry.addArray();
            for (int i = 0; i < cell.getKey().size(); i++) address.add(cell.getKey().label(i));
            entry.add(cell.getValue());
        });
        return encoded;
    }
}

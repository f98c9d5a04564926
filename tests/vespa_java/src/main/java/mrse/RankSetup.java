package mrse;

import ai.vespa.models.evaluation.ModelsEvaluator;
import com.yahoo.searchlib.rankingexpression.RankingExpression;
import com.yahoo.searchlib.rankingexpression.rule.ConstantNode;
import com.yahoo.vespa.config.search.AttributesConfig;
import com.yahoo.vespa.config.search.IndexschemaConfig;
import com.yahoo.vespa.config.search.RankProfilesConfig;
import com.yahoo.vespa.config.search.core.OnnxModelsConfig;
import com.yahoo.vespa.model.VespaModel;
import com.yahoo.yolean.Exceptions;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * The part of vespa-verify-ranksetup (C++, part of the server, not published) that these packages need: ONNX models that load and fit
 * their inputs, and rank features that something provides. Strict: a kind of feature that no profile here uses is a problem until listed.
 */
class RankSetup {

    private static final Pattern featurePattern = Pattern.compile("(\\w+)(?:\\((?:(field|label)\\s*,\\s*)?\"?([^,)\"]*).*\\)(?:\\.\\w+)?)?");
    private static final Set<String> withoutField = Set.of("firstPhase", "secondPhase", "rankingExpression", "value");

    static List<String> problems(VespaModel model) {
        String id;
        ModelsEvaluator evaluator;
        try {
            id = RankFunctions.itemSchema(model);
            evaluator = RankFunctions.evaluator(model);
        } catch (Exception e) {
            return List.of(Exceptions.toMessageString(e));
        }
        Set<String> attributes = model.getConfig(AttributesConfig.class, id).attribute().stream().map(a -> a.name()).collect(Collectors.toSet());
        Set<String> indexes = model.getConfig(IndexschemaConfig.class, id).indexfield().stream().map(f -> f.name()).collect(Collectors.toSet());
        List<String> problems = new ArrayList<>();
        for (var profile : model.getConfig(RankProfilesConfig.class, id).rankprofile()) {
            Map<String, String> properties = new HashMap<>();
            Set<String> used = new TreeSet<>();
            for (var property : profile.fef().property()) {
                properties.put(property.name(), property.value());
                if (property.name().matches("vespa\\.(match|summary)\\.feature")) used.add(property.value());
            }
            for (var function : evaluator.requireModel(profile.name()).functions()) used.addAll(function.argumentTypes().keySet());
            for (String feature : used) {
                String problem = problem(feature, properties, attributes, indexes);
                if (problem != null) problems.add("rank profile '" + profile.name() + "': " + feature + ": " + problem);
            }
            for (var onnx : model.getConfig(OnnxModelsConfig.class, id).model())
                for (var input : onnx.input()) {
                    String script = properties.get(input.source() + ".rankingScript");
                    if (script != null && isConstant(script)) // Vespa folded it: the content node would see a number where the graph wants a tensor
                        problems.add("rank profile '" + profile.name() + "': ONNX input " + input.name() + " of " + onnx.name() + " is the constant " + script);
                }
        }
        return problems;
    }

    private static String problem(String feature, Map<String, String> properties, Set<String> attributes, Set<String> indexes) {
        if (feature.startsWith("normalize@")) return null; // made by the container for a global phase
        Matcher m = featurePattern.matcher(feature);
        String name = m.matches() ? m.group(1) : feature, argument = m.matches() ? m.group(3) : null;
        if (withoutField.contains(name)) return null;
        return switch (name) {
            case "query" -> properties.containsKey("vespa.type.query." + argument) || properties.containsKey(feature) ? null : "not declared in inputs";
            case "attribute" -> attributes.contains(argument) ? null : "no such attribute";
            case "bm25" -> indexes.contains(argument) ? null : "no such index field";
            case "itemRawScore" -> null; // any label: the query gives it
            case "closeness", "distance" -> "label".equals(m.group(2)) || attributes.contains(argument) ? null : "no such field";
            default -> "no such feature (if it is an ONNX input: not mapped)";
        };
    }

    private static boolean isConstant(String script) {
        try {
            return new RankingExpression(script).getRoot() instanceof ConstantNode;
        } catch (Exception e) {
            return false;
        }
    }
}
